"""The refusals of a start (api.md, Bookings), in one place."""

from typing import Final

from kalends_shared.contracts.errors import FieldError, KalendsError

_DETAILS: Final = {
    "busy": "That time is taken.",
    "capacity": "There are not so many seats left.",
    "resource": "What the booking needs is taken at that time.",
    "limit": "The host has as many bookings as are allowed in that period.",
    "booker": "The booker has as many upcoming bookings as are allowed.",
    "first_of_day": "Only the first free start of that day is offered.",
}
_CODES: Final = {"limit": "limit_reached", "booker": "booker_limit_reached", "first_of_day": "slot_not_offered"}
# The codes whose refusals carry other starts that are offered.
WITH_ALTERNATIVES: Final = frozenset({"slot_not_offered", "slot_taken", "limit_reached"})


def refused(rule: str, detail: str = "", code: str | None = None) -> KalendsError:
    """A start that is refused by the rule of that name."""
    code = code or _CODES.get(rule, "slot_taken")
    detail = detail or _DETAILS.get(rule, "That start is not offered.")
    fields = (FieldError("#/start_at", code, detail, rule),) if code == "slot_not_offered" else ()
    return KalendsError(code, detail, fields, extra={"rule": rule})
