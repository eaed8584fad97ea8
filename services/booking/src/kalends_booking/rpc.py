"""Subject -> handler: `kalends.rpc.booking.<method>`."""

from collections.abc import Awaitable, Callable
from typing import Final

from kalends_booking.handlers import changes, histories, holds, patching, persons, placing, queries, timers
from kalends_booking.handlers.context import Context
from kalends_shared import idempotency
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.rpc import Handler

Command = Callable[[Context, Call], Awaitable[Reply]]

METHODS: Final[dict[str, Command]] = {
    "create_booking": placing.create_booking,
    "reschedule_booking": placing.reschedule_booking,
    "reassign_booking": placing.reassign_booking,
    "get_booking": queries.get_booking,
    "list_bookings": queries.list_bookings,
    "cancel_booking": changes.cancel_booking,
    "approve_booking": changes.approve_booking,
    "decline_booking": changes.decline_booking,
    "complete_booking": changes.complete_booking,
    "no_show_booking": changes.no_show_booking,
    "undo_no_show": changes.undo_no_show,
    "payment_booking": changes.payment_booking,
    "recordings_booking": changes.recordings_booking,
    "patch_booking": patching.patch_booking,
    "booking_history": histories.booking_history,
    "create_hold": holds.create_hold,
    "get_hold": holds.get_hold,
    "list_holds": holds.list_holds,
    "release_hold": holds.release_hold,
    "list_people": persons.list_people,
    "get_person": persons.get_person,
    "erase_person": persons.erase_person,
    "advance_clock": timers.advance_clock,
}


def handlers(ctx: Context) -> dict[str, Handler]:
    return idempotency.first_answers(ctx.db, {name: _bound(command, ctx) for name, command in METHODS.items()})


def _bound(command: Command, ctx: Context) -> Handler:
    async def handle(call: Call) -> Reply:
        return await command(ctx, call)

    return handle
