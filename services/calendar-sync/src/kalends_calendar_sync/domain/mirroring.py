"""What to do next about a booking in a calendar, so that the calendar comes to hold what it is to hold, once.

Each write is conditional on the version it replaces. Whatever happens to it (a crash, a lost answer, another writer),
the next look at the calendar tells where things stand, and the same rule goes on from there.
"""

from typing import Final, Literal

from msgspec import Struct

MOST_STEPS: Final = 6
# A host's edit is set right so many times; then it is left, and told, so that two programs never fight for ever.
MOST_CORRECTIONS: Final = 3

Step = Literal["look", "create", "replace", "remove", "done"]


class There(Struct, frozen=True):
    """What the calendar holds of the booking: nothing where `etag` is None. `right`: it is what is desired.

    `sure` is false while that is only what we believe.
    """

    etag: str | None
    sure: bool
    right: bool = False


def next_step(desired: bool, there: There) -> Step:
    if not there.sure:
        return "look"
    if not desired:
        return "done" if there.etag is None else "remove"
    if there.etag is None:
        return "create"
    return "done" if there.right else "replace"
