"""Reads the truth past every service, in plain SQL, as an auditor with the database's own password would."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

LATEST: Final = """
SELECT DISTINCT ON (tenant_id, stream_id) tenant_id, stream_id, state::jsonb AS state
FROM booking.events WHERE stream_id LIKE 'bkg\\_%' ORDER BY tenant_id, stream_id, version DESC
"""
# Two bookings of one host whose times meet, and which do not sit in one group slot.
OVERLAPS: Final = f"""
WITH latest AS ({LATEST}), busy AS (
    SELECT tenant_id, stream_id, host, state->>'event_type_id' AS event_type,
        (state->>'start_at')::timestamptz AS starts, (state->>'end_at')::timestamptz AS ends,
        coalesce((state->'policies'->>'capacity')::int, 1) AS capacity
    FROM latest, jsonb_array_elements_text(state->'host_ids') AS host
    WHERE state->>'status' IN ('pending', 'confirmed', 'completed', 'no_show')
)
SELECT a.stream_id, b.stream_id FROM busy a JOIN busy b ON a.tenant_id = b.tenant_id AND a.host = b.host
    AND a.stream_id < b.stream_id AND a.starts < b.ends AND b.starts < a.ends
WHERE NOT (a.capacity > 1 AND a.event_type = b.event_type AND a.starts = b.starts AND a.ends = b.ends)
"""
# How many events of a source a service has not heard of yet.
BEHIND: Final = """
SELECT count(*) FROM {source}.events e
WHERE (e.tx, e.position) > coalesce((SELECT (c.tx, c.position) FROM {service}.checkpoints c WHERE c.source = $1), (0, 0))
"""


class Judge:
    """One connection, made anew where the server was killed under it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._conn: asyncpg.Connection[Any] | None = None

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        for attempt in range(100):
            try:
                if self._conn is None or self._conn.is_closed():
                    self._conn = await asyncpg.connect(self.url, timeout=10)
                return list(await self._conn.fetch(sql, *args))
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, asyncpg.InterfaceError):
                assert attempt < 99, "the database does not come back"
                await asyncio.sleep(0.1)
        raise AssertionError

    @asynccontextmanager
    async def undone(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """A transaction that is rolled back; what is fetched meanwhile is read in it."""
        await self.fetch("SELECT")
        assert self._conn is not None
        transaction = self._conn.transaction()
        await transaction.start()
        try:
            yield self._conn
        finally:
            await transaction.rollback()

    async def value(self, sql: str, *args: object) -> Any:
        return (await self.fetch(sql, *args))[0][0]

    async def close(self) -> None:
        if self._conn is not None:
            await self._conn.close()

    async def overlaps(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self.fetch(OVERLAPS)]

    async def bookings(self) -> dict[str, dict[str, Any]]:
        """Every booking's latest state, out of the events."""
        import msgspec

        return {row["stream_id"]: msgspec.json.decode(row["state"]) for row in await self.fetch(LATEST)}

    async def behind(self, service: str, source: str) -> int:
        count: int = await self.value(BEHIND.format(service=service, source=source), source)
        return count

    async def transactions(self) -> int:
        """How many of the services' transactions are open at this moment."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'kalends-%' AND state <> 'idle'"
        count: int = await self.value(sql)
        return count
