"""How long to wait after a failure: full jitter below a doubling bound, and never less than the other side asked for."""

from typing import Final

PULL_FIRST: Final = 15.0
PULL_MOST: Final = 600.0
PUSH_FIRST: Final = 2.0
PUSH_MOST: Final = 1800.0
PUSH_ATTEMPTS: Final = 20


def pause(attempt: int, first: float, most: float, dice: float, asked: float | None = None) -> float:
    """Seconds before the next attempt after the `attempt`-th (from 1) has failed. `dice` is random in [0, 1)."""
    bound: float = min(most, first * 2 ** min(attempt - 1, 30))
    return max(bound * dice, asked or 0.0, 0.1)
