"""What every handler works with."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from kalends_availability.store.replica import Changed, Replica
from kalends_shared import positions
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database
from kalends_shared.event_store import Position
from kalends_shared.positions import PositionWatch

OWN: Final = "availability"


class Context(Struct, frozen=True):
    """The service's own database and memory, its consumers' checkpoints, and what is done after a commit of its own.

    `knows_bookings(seconds)` waits until every booking that was committed by now is projected; False where it is not in
    time.
    """

    db: Database
    replica: Replica
    watches: Mapping[str, PositionWatch]
    knows_bookings: Callable[[float], Awaitable[bool]]
    committed: Callable[[Sequence[Changed]], Awaitable[None]]

    async def seen(self, call: Call) -> None:
        """Waits until this replica sees the write that `Kalends-Min-Position` names.

        Raises:
            KalendsError: `position_not_reached`, `malformed`.
        """
        if call.min_position is None:
            return
        await positions.wait_for(self.watches, call)
        # What has been projected by another replica may still be missing here.
        await self.replica.sweep()

    async def caught_up(self, booking: Position, seconds: float) -> None:
        """Waits until this replica sees booking's events up to there, for as long as that may take."""
        watch = self.watches["booking"]
        if await watch.wait(booking, seconds):
            await self.replica.sweep()


def wall() -> float:
    """The wall clock, by which calendars grow stale whatever a test clock says."""
    return datetime.now(UTC).timestamp()


def unknown(what: str) -> KalendsError:
    return KalendsError("not_found", f"This {what} does not exist.")
