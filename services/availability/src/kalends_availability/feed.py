"""How far booking's events have got, asked of booking itself."""

import asyncio
from typing import Final

from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database
from kalends_shared.event_store import Position
from kalends_shared.positions import SELECT_CHECKPOINT, PositionWatch
from kalends_shared.projection import EventsAfter, place

# A commit may be hidden for a moment behind an older transaction that is still open: so it is asked twice.
LOOKS: Final = 2
PAUSE_SECONDS: Final = 0.03


class BookingFeed:
    """handlers.context.BookingFeed over RPC."""

    def __init__(self, db: Database, events_after: EventsAfter, watch: PositionWatch) -> None:
        self._db = db
        self._events_after = events_after
        self._watch = watch

    async def caught_up(self, seconds: float) -> bool:
        """Waits until what booking has committed by now is projected; False where it is not in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._catch_up(seconds)
        except (TimeoutError, KalendsError):
            return False
        return True

    async def _catch_up(self, seconds: float) -> None:
        quiet = 0
        while quiet < LOOKS:
            row = await self._db.pool.fetchrow(SELECT_CHECKPOINT, "booking")
            page = await self._events_after(Position(*row) if row is not None else Position(), 1)
            if page:
                quiet = 0
                await self._watch.wait(place(page[0]), seconds)
            else:
                quiet += 1
                if quiet < LOOKS:
                    await asyncio.sleep(PAUSE_SECONDS)
