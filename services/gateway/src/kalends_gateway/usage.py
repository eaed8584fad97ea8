"""When keys were last used, written in batches, so that a request writes nothing."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from kalends_gateway.identity import Identity
from kalends_gateway.store import keys
from kalends_shared.service import wait

FLUSH_SECONDS: Final = 3.0


class Usage:
    """The uses since the last batch, one a key."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._uses: dict[tuple[str, str], None] = {}

    def note(self, identity: Identity) -> None:
        self._uses[identity.tenant, identity.key_id] = None

    async def run(self, stop: asyncio.Event) -> None:
        """Writes a batch every few seconds, and the last one at `stop`."""
        while not await wait(stop, FLUSH_SECONDS):
            await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        if self._uses:
            uses, self._uses = self._uses, {}
            now = datetime.now(UTC)
            try:
                await keys.used(self._pool, [(tenant, key_id, now) for tenant, key_id in uses])
            except BaseException:
                self._uses = uses | self._uses  # the next batch has them too
                raise
