"""A new subscription hears of what happens from then on: so what has happened before is first taken in."""

import asyncio
from collections.abc import Mapping
from typing import Final

from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database
from kalends_shared.event_store import Position
from kalends_shared.positions import SELECT_CHECKPOINT, PositionWatch
from kalends_shared.projection import EventsAfter, place

SECONDS: Final = 1.0
LOOK: Final = 500


class Settling:
    """Asks each source for what this service has not applied yet, and waits a second for it at most.

    A source that does not answer, or a consumer that lags further, does not hold up a subscription: it then hears of
    some things that happened before it, and misses none that come after.
    """

    def __init__(self, db: Database, sources: Mapping[str, tuple[EventsAfter, PositionWatch]]) -> None:
        self._db, self._sources = db, sources

    async def __call__(self) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.gather(*(self._settle(source) for source in self._sources))
        except (TimeoutError, KalendsError):
            return

    async def _settle(self, source: str) -> None:
        events_after, watch = self._sources[source]
        row = await self._db.pool.fetchrow(SELECT_CHECKPOINT, source)
        waiting = await events_after(Position(*row) if row else Position(), LOOK)
        if waiting:
            await watch.wait(place(waiting[-1]), SECONDS)
