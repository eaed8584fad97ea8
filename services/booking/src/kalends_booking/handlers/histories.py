"""What happened to a booking, oldest first."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from kalends_booking.handlers.context import Context
from kalends_booking.handlers.queries import seen
from kalends_booking.store import bookings
from kalends_shared import event_store, lists
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.endpoints import PageQuery
from kalends_shared.contracts.errors import not_found
from kalends_shared.event_store import Stored

# What events carry for consumers, beside what the action was.
_INNER: Final = frozenset({"event_type", "hosts", "policies", "units", "person_version", "previous_person_version"})


class Key(Struct, frozen=True):
    version: int


async def booking_history(ctx: Context, call: Call) -> Reply:
    asked = query(call.query, PageQuery)
    window = lists.window(asked, Key)
    await seen(call)
    booking_id = call.params["id"]
    async with ctx.db.pool.acquire() as conn:
        booked = await bookings.get(conn, call.tenant, booking_id)
        if booked is None:
            raise not_found("A booking of this id")
        after = window.after.version if window.after is not None else window.offset
        rows = await event_store.history(conn, call.tenant, booking_id, after, window.take)
    body = lists.answer(window, rows, key=lambda row: Key(row.version), encode=_entry, total=booked.state.version)
    return Reply(body=body)


def _entry(stored: Stored) -> bytes:
    actor: dict[str, Any] = {"type": "system", "id": None, "name": None} | msgspec.json.decode(stored.actor)
    data = {name: value for name, value in msgspec.json.decode(stored.data).items() if name not in _INNER}
    entry = {"id": stored.id, "type": stored.type, "occurred_at": stored.occurred_at, "actor": actor, "data": data}
    return msgspec.json.encode(entry)
