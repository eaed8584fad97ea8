"""People: who has booked, as they described themselves last; and their erasure."""

import msgspec
from msgspec import Struct
from uuid_utils import uuid7

from kalends_booking.handlers.context import Context
from kalends_booking.handlers.queries import seen
from kalends_booking.store import people
from kalends_shared import lists, positions
from kalends_shared.contracts.call import Call, Reply, check_match, etag
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.endpoints import PageQuery
from kalends_shared.contracts.errors import not_found


class Key(Struct, frozen=True):
    id: str


async def list_people(ctx: Context, call: Call) -> Reply:
    asked = query(call.query, PageQuery)
    window = lists.window(asked, Key)
    await seen(call)
    before = window.after.id if window.after is not None else None
    rows = await people.page(ctx.db.pool, call.tenant, before, window.take, window.offset)
    total = await people.count(ctx.db.pool, call.tenant) if window.numbered else None
    return Reply(body=lists.answer(window, rows, key=lambda row: Key(row.id), encode=msgspec.json.encode, total=total))


async def get_person(ctx: Context, call: Call) -> Reply:
    await seen(call)
    person = await people.get(ctx.db.pool, call.tenant, call.params["id"])
    if person is None:
        raise not_found("A person of this id")
    return Reply(body=person, etag=etag(person.version))


async def erase_person(ctx: Context, call: Call) -> Reply:
    """Empties every version of a person and their part of stored answers; the event tells the other services to do so."""
    person_id = call.params["id"]
    async with ctx.db.transaction() as conn:
        # The lock of the person's stream, before anything is written: no booking of theirs commits meanwhile.
        await people.lock(conn, call.tenant, person_id)
        person = await people.get(conn, call.tenant, person_id)
        if person is None:
            raise not_found("A person of this id")
        check_match(call, person.version)
        at = await people.erase(conn, call, person_id, str(uuid7()))
    await ctx.nudge()
    return Reply(status=204, position=positions.token("booking", at))
