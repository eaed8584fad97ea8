"""A new subscription hears of what happens from then on: so what has happened before is first taken in."""

import asyncio
from collections.abc import Mapping
from typing import Final

from kalends_shared.positions import LastEvent, PositionWatch, caught_up

SECONDS: Final = 1.0


class Settling:
    """Asks each source for its last event, and waits until this service has applied it, for so many seconds at most.

    A source that does not answer, or a consumer that lags further, does not hold up a subscription: it then hears of
    some things that happened before it, and misses none that come after.
    """

    def __init__(self, sources: Mapping[str, tuple[PositionWatch, LastEvent]], seconds: float = SECONDS) -> None:
        self._sources, self._seconds = sources, seconds

    async def __call__(self) -> None:
        await asyncio.gather(*(caught_up(*source, self._seconds) for source in self._sources.values()))
