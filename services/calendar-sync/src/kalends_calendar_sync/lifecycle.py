"""A connection's end: the row and its password go, and with them all that was read under it."""

from collections.abc import Mapping
from typing import Any

from kalends_calendar_sync.store import calendars, cursors, items, mirrors
from kalends_calendar_sync.store.calendars import Connected
from kalends_shared.contracts.call import Call
from kalends_shared.db import Connection
from kalends_shared.event_store import Appended


async def disconnect(conn: Connection, call: Call, row: Connected, data: Mapping[str, Any]) -> Appended:
    """Disconnects, in a transaction that holds the lock of the calendar's stream.

    Bookings that were written into the calendar stay there: without the password nobody can take them out.
    """
    made = await calendars.remove(conn, call, row, data)
    await conn.execute(cursors.DELETE, row.tenant_id, row.id)
    await conn.execute(mirrors.FORGET, row.tenant_id, row.id)
    await items.forget(conn, row.tenant_id, row.id)
    return made
