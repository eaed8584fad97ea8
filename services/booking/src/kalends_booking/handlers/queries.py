"""What is read of bookings; the read model is written with the events, so every read sees every write before it."""

from kalends_booking.handlers.context import Context
from kalends_booking.store import booking_lists, bookings
from kalends_shared import lists, positions
from kalends_shared.contracts.booking import BookingQuery, BookingsQuery
from kalends_shared.contracts.call import Call, Reply, etag
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.errors import not_found


async def get_booking(ctx: Context, call: Call) -> Reply:
    as_of = query(call.query, BookingQuery).as_of
    await seen(call)
    if as_of is None:
        found = await bookings.get(ctx.db.pool, call.tenant, call.params["id"])
    else:
        found = await bookings.get_as_of(ctx.db.pool, call.tenant, call.params["id"], as_of)
    if found is None:
        raise not_found("A booking of this id")
    return Reply(body=bookings.encode(found), etag=etag(found.state.version))


async def list_bookings(ctx: Context, call: Call) -> Reply:
    asked = query(call.query, BookingsQuery)
    window = lists.window(asked, booking_lists.Key)
    await seen(call)
    rows = await booking_lists.page(ctx.db.pool, call, asked, window)
    total = await booking_lists.count(ctx.db.pool, call, asked) if window.numbered else None
    body = lists.answer(
        window,
        rows,
        key=lambda row: booking_lists.Key(row.state.start_at, row.state.id),
        encode=bookings.encode,
        total=total,
    )
    return Reply(body=body)


async def seen(call: Call) -> None:
    """Holds the call's minimum position to its form; every position of our own is reached once it has been given."""
    await positions.wait_for({}, call)
