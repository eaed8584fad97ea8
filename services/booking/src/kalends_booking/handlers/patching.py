"""PATCH of a booking: what its booker told, its location, its metadata."""

from msgspec import structs

from kalends_booking.domain import answers, booking, placing
from kalends_booking.domain.events import BookingUpdated
from kalends_booking.handlers.changes import Attempt, attempted
from kalends_booking.handlers.context import Context
from kalends_booking.store import people
from kalends_booking.store.bookings import Loaded
from kalends_booking.store.people import PersonVersion
from kalends_shared.contracts.booking import BookingPatch, BookingState, PersonData
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import patch
from kalends_shared.contracts.errors import KalendsError, invalid
from kalends_shared.contracts.quotes import Quote, QuoteRequest

_ERASED = "erased"
_OF_THE_BOOKER = ("booker_name", "booker_phone", "booker_timezone", "guests", "answers")


async def patch_booking(ctx: Context, call: Call) -> Reply:
    """Changes a booking; where nothing is other for it, nothing happens."""

    async def attempt(loaded: Loaded) -> Attempt | None:
        current = _writable(loaded)
        wanted = patch(call.body, current)
        changed = {name for name in wanted.__struct_fields__ if getattr(wanted, name) != getattr(current, name)}
        if not changed:
            return None
        state = loaded.state
        event = BookingUpdated(
            person_version=state.person_version,
            location=state.location,
            meeting_url=state.meeting_url,
            metadata=wanted.metadata,
        )
        if changed & {"location_id", "answers"}:
            quote = await _quote(ctx, call, state, wanted)
            if "answers" in changed:
                _check_answers(wanted, current, quote)
            if "location_id" in changed:
                place = quote.location if quote is not None and wanted.location_id is not None else None
                if wanted.location_id is not None and place is None:
                    raise invalid("#/location_id", "not_found", "does not exist")
                event = structs.replace(
                    event, location=placing.place(place), meeting_url=placing.meeting_url(place, state.id)
                )
        person = None
        if changed & set(_OF_THE_BOOKER):
            person = _told_anew(loaded, wanted)
            event = structs.replace(event, person_version=person.version, previous_person_version=state.person_version)
        decision = booking.update(state, call.now, event)
        shown = person.data() if person is not None else loaded.person
        return None if decision is None else Attempt(decision, shown, person)

    return await attempted(ctx, call, attempt)


def _writable(loaded: Loaded) -> BookingPatch:
    state = loaded.state
    person = loaded.person or PersonData(person_id=state.person_id, name=_ERASED, email=_ERASED)
    return BookingPatch(
        booker_name=person.name,
        booker_phone=person.phone,
        booker_timezone=person.timezone,
        guests=person.guests,
        answers=person.answers,
        location_id=state.location.id if state.location else None,
        metadata=state.metadata,
    )


def _told_anew(loaded: Loaded, wanted: BookingPatch) -> PersonVersion:
    if loaded.person is None:
        raise KalendsError("invalid_state", "The booker was erased.", extra={"state": loaded.state.status})
    return PersonVersion(
        person_id=loaded.state.person_id,
        known=True,
        version=people.new_version(),
        name=wanted.booker_name,
        email=loaded.person.email,
        phone=wanted.booker_phone,
        timezone=wanted.booker_timezone,
        guests=wanted.guests,
        answers=wanted.answers,
    )


async def _quote(ctx: Context, call: Call, state: BookingState, wanted: BookingPatch) -> Quote | None:
    """The event type's questions and the location as they are now; None where the event type is no longer there.

    Whether the booking's time would still be offered is not asked: it has it.
    """
    request = QuoteRequest(
        event_type_id=state.event_type_id,
        start_at=state.start_at,
        end_at=state.end_at,
        location_id=wanted.location_id,
        booking_id=state.id,
        purpose="reassign",
    )
    try:
        return await ctx.quotes.quote(call, request)
    except KalendsError as error:
        if any(field.pointer == "#/location_id" for field in error.fields) or error.status >= 500:
            raise
        return None


def _check_answers(wanted: BookingPatch, current: BookingPatch, quote: Quote | None) -> None:
    if quote is None:
        answers.check_sizes(wanted.answers)
    else:
        answers.check(wanted.answers, quote.event_type.questions, current.answers)
