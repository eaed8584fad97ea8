"""A read model made again out of its source's events, beside the one that serves, to be compared with it and put right.

It is made in temporary tables of the same names, which PostgreSQL finds before the live ones: so a projection's `apply`
writes into them unchanged, and the live ones serve meanwhile. Once they have come as far as the consumer, that is held off
while the two are compared, so that both are as of the same event; it asks again every few seconds.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from kalends_shared import db
from kalends_shared.event_store import Position
from kalends_shared.positions import SELECT_CHECKPOINT
from kalends_shared.projection import REPLAY_PAGE, Apply, EventsAfter, NewerSchema, place
from kalends_shared.upcasters import UPCASTERS

LONGEST_SECONDS: Final = 3_600.0  # for a comparison of tables of any size
COPY: Final = "CREATE TEMPORARY TABLE {table} (LIKE {schema}.{table} INCLUDING ALL)"
# The lock of `consumer_begin`, but of the session: a transaction that has written holds back every tail of the server.
HOLD_OFF: Final = "SELECT pg_advisory_lock(hashtextextended('consumer/' || current_schema() || '/' || $1, 1))"
# Whole tables are read here, which a service never does.
WHOLE_TABLES: Final = """
SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on
"""
# As text, since json columns have no equality.
DIFFERENT: Final = """
SELECT * FROM {schema}.{table} t WHERE NOT EXISTS (SELECT FROM pg_temp.{table} f WHERE f::text = t::text)
UNION ALL
SELECT * FROM pg_temp.{table} f WHERE NOT EXISTS (SELECT FROM {schema}.{table} t WHERE t::text = f::text)
"""
REMOVE: Final = (
    "DELETE FROM {schema}.{table} t WHERE NOT EXISTS (SELECT FROM pg_temp.{table} f WHERE f::text = t::text)"
)
ADD: Final = """
INSERT INTO {schema}.{table}
SELECT * FROM pg_temp.{table} f WHERE NOT EXISTS (SELECT FROM {schema}.{table} t WHERE t::text = f::text)
"""


class Rebuilt:
    """The read model made again, while its consumer waits. `conn` is the transaction in which the live one is put right."""

    def __init__(self, conn: "asyncpg.Connection[Any]", schema: str) -> None:
        self.conn, self._schema = conn, schema

    async def different(self, table: str) -> AsyncIterator[asyncpg.Record]:
        """The rows that only one of the two has."""
        query = DIFFERENT.format(schema=self._schema, table=table)
        async for row in self.conn.cursor(query, timeout=LONGEST_SECONDS):
            yield row

    async def put_right(self, table: str) -> None:
        """Makes the live table what the rebuilt one is; tails are held back from here to the end of the transaction."""
        for statement in (REMOVE, ADD):
            await self.conn.execute(statement.format(schema=self._schema, table=table), timeout=LONGEST_SECONDS)


@asynccontextmanager
async def rebuilt(
    url: str, schema: str, source: str, tables: Sequence[str], apply: Apply, events_after: EventsAfter
) -> AsyncIterator[Rebuilt]:
    """Makes these tables of a schema again, which `apply` fills from the events of one source and nothing else does.

    `url` leads to PostgreSQL itself, as a user that may act as the schema's role. What is done with the result is one
    transaction.

    Raises:
        NewerSchema: an event is of a later release.
        Exception: what `apply` and `events_after` raise; nothing was changed.
    """
    conn = await db.direct(url, schema, "rebuild")
    try:
        for table in tables:
            await conn.execute(COPY.format(schema=schema, table=table))
        at = await _follow(conn, source, Position(), apply, events_after)
        await conn.execute(HOLD_OFF, source)
        await _follow(conn, source, at, apply, events_after)
        async with conn.transaction():
            await conn.execute(WHOLE_TABLES)
            yield Rebuilt(conn, schema)
    finally:
        await conn.close()


async def _follow(
    conn: "asyncpg.Connection[Any]", source: str, at: Position, apply: Apply, events_after: EventsAfter
) -> Position:
    """Applies the events after `at` as far as the consumer has; returns where it has come to."""
    row = await conn.fetchrow(SELECT_CHECKPOINT, source)
    upto = Position() if row is None else Position(*row)
    while at < upto:
        events = [event for event in await events_after(at, REPLAY_PAGE) if place(event) <= upto]
        if not events:
            break
        if late := next(filter(UPCASTERS.newer, events), None):
            raise NewerSchema(f"{late.type} has schema version {late.schema_version}")
        async with conn.transaction():
            await apply(conn, [UPCASTERS.raised(event) for event in events])
        at = place(events[-1])
    return at
