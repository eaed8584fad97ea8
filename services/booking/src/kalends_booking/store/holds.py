"""Holds as they are read."""

from typing import Any, Final

from kalends_booking.store import codec
from kalends_shared.contracts.booking import HoldState
from kalends_shared.db import Connection

GET: Final = "SELECT state FROM holds WHERE tenant_id = $1 AND id = $2"
# Newest first: ids sort by the time of their making.
LIST: Final = """
SELECT state FROM holds WHERE tenant_id = $1 AND ($2::text IS NULL OR id < $2) ORDER BY id DESC LIMIT $3 OFFSET $4
"""
COUNT: Final = "SELECT count(*) FROM holds WHERE tenant_id = $1"


async def get(conn: "Connection | Any", tenant: str, hold_id: str) -> HoldState | None:
    raw = await conn.fetchval(GET, tenant, hold_id)
    return None if raw is None else codec.hold_state(raw)


async def page(conn: "Connection | Any", tenant: str, before: str | None, take: int, offset: int) -> list[HoldState]:
    return [codec.hold_state(row["state"]) for row in await conn.fetch(LIST, tenant, before, take, offset)]


async def count(conn: "Connection | Any", tenant: str) -> int:
    return int(await conn.fetchval(COUNT, tenant))
