"""Holds as they are read."""

from collections.abc import Sequence
from typing import Final

from kalends_booking.store import codec
from kalends_shared.contracts.booking import HoldState
from kalends_shared.db import Connection, Queryable

GET: Final = "SELECT state FROM holds WHERE tenant_id = $1 AND id = $2"
STATES: Final = """
SELECT h.tenant_id, h.id, h.state FROM unnest($1::text[], $2::text[]) AS w (tenant_id, id)
JOIN holds h ON h.tenant_id = w.tenant_id AND h.id = w.id
"""
# Newest first: ids sort by the time of their making.
LIST: Final = """
SELECT state FROM holds WHERE tenant_id = $1 AND ($2::text IS NULL OR id < $2) ORDER BY id DESC LIMIT $3 OFFSET $4
"""
COUNT: Final = "SELECT count(*) FROM holds WHERE tenant_id = $1"


async def get(conn: Queryable, tenant: str, hold_id: str) -> HoldState | None:
    raw = await conn.fetchval(GET, tenant, hold_id)
    return None if raw is None else codec.hold_state(raw)


async def states(conn: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], HoldState]:
    """Holds by (tenant, id); those that there are."""
    rows = await conn.fetch(STATES, [tenant for tenant, _ in keys], [key for _, key in keys]) if keys else []
    return {(row["tenant_id"], row["id"]): codec.hold_state(row["state"]) for row in rows}


async def page(conn: Queryable, tenant: str, before: str | None, take: int, offset: int) -> list[HoldState]:
    return [codec.hold_state(row["state"]) for row in await conn.fetch(LIST, tenant, before, take, offset)]


async def count(conn: Queryable, tenant: str) -> int:
    return int(await conn.fetchval(COUNT, tenant))
