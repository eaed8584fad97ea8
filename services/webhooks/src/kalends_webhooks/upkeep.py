"""What is done now and then: partitions of the log made ahead and dropped behind, old answers and samples forgotten."""

import asyncio
from typing import Final

from kalends_shared import idempotency, telemetry
from kalends_shared.db import Database
from kalends_shared.service import wait

EVERY_SECONDS: Final = 600.0
DAYS_AHEAD: Final = 7
AT_ONCE: Final = 1000
KEEP: Final = "SELECT keep_deliveries($1, $2)"
FORGET: Final = "SELECT forget_old($1, $2)"


class Upkeep:
    """Every replica may run it; the functions let one at a time do each step."""

    def __init__(self, db: Database, log_days: int) -> None:
        self._db, self._days = db, log_days

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.once()
            await wait(stop, EVERY_SECONDS)

    async def once(self) -> None:
        """Each step is a transaction of its own, so that none holds its locks for long."""
        while (partition := await self._db.pool.fetchval(KEEP, self._days, DAYS_AHEAD)) is not None:
            telemetry.log("webhooks.partition", name=partition)
        while await self._db.pool.fetchval(FORGET, self._days, AT_ONCE) >= AT_ONCE:
            continue
        while await idempotency.prune(self._db.pool) > 0:
            continue
