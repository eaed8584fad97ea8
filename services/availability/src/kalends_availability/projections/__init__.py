"""Events of other services -> busy time."""
