"""Every public endpoint, once: the gateway's routes, scopes and OpenAPI document, and the names of the services' methods."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from kalends_shared.contracts import accounts, availability, booking, calendars, webhooks

Needs = Literal["any", "read", "write", "webhooks", "hooks", "admin"]


class PageQuery(Struct, kw_only=True):
    """A list by cursor (`limit`, `cursor`) or by number (`page`, `per_page`)."""

    limit: Annotated[int, Meta(ge=1, le=100)] | None = None
    cursor: str | None = None
    page: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    per_page: Annotated[int, Meta(ge=1, le=100)] | None = None


class NoQuery(Struct):
    """No parameters; every one is unknown."""


class NoBody(Struct):
    """No members; every one is unknown."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """One method of one path. `needs` is the scope (hooks: read or webhooks; any: none in particular).

    `answer` is one thing's Struct; with `lists` the answer is a page of them. `idempotency` tells whether a POST must
    carry an Idempotency-Key; `retry_unkeyed`, that a call which has timed out may be made again without one.
    """

    method: str
    path: str
    service: str
    rpc: str
    needs: Needs
    summary: str
    body: type[Struct] | None = None
    query: type[Struct] = NoQuery
    answer: type[Struct] | None = None
    status: int = 200
    lists: bool = False
    idempotency: Literal["honoured", "required", "none"] = "none"
    errors: tuple[str, ...] = ()
    retry_unkeyed: bool = False


def _get(path: str, service: str, rpc: str, needs: Needs, summary: str, **more: Any) -> Endpoint:
    return Endpoint(
        method="GET", path=path, service=service, rpc=rpc, needs=needs, summary=summary, retry_unkeyed=True, **more
    )


def _post(path: str, service: str, rpc: str, needs: Needs, summary: str, **more: Any) -> Endpoint:
    more.setdefault("idempotency", "honoured")
    return Endpoint(method="POST", path=path, service=service, rpc=rpc, needs=needs, summary=summary, **more)


def _patch(path: str, service: str, rpc: str, needs: Needs, summary: str, **more: Any) -> Endpoint:
    return Endpoint(
        method="PATCH", path=path, service=service, rpc=rpc, needs=needs, summary=f"{summary} (RFC 7396)", **more
    )


def _delete(path: str, service: str, rpc: str, needs: Needs, summary: str, **more: Any) -> Endpoint:
    more.setdefault("status", 204)
    return Endpoint(method="DELETE", path=path, service=service, rpc=rpc, needs=needs, summary=summary, **more)


def _crud(path: str, one: str, service: str, made: type[Struct], out: type[Struct]) -> list[Endpoint]:
    """The five endpoints of a kind of thing that is created, read, listed, changed and deleted by id."""
    many, name = path.strip("/").replace("-", "_"), one.replace("_", " ")
    a_thing = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    taken = ("slug_in_use",) if "slug" in made.__struct_fields__ else ()
    return [
        _get(
            path,
            service,
            f"list_{many}",
            "read",
            f"List {many.replace('_', ' ')}",
            query=PageQuery,
            answer=out,
            lists=True,
        ),
        _post(
            path,
            service,
            f"create_{one}",
            "write",
            f"Create {a_thing}",
            body=made,
            answer=out,
            status=201,
            errors=taken,
        ),
        _get(f"{path}/{{id}}", service, f"get_{one}", "read", f"Read {a_thing}", answer=out),
        _patch(
            f"{path}/{{id}}", service, f"patch_{one}", "write", f"Change {a_thing}", body=made, answer=out, errors=taken
        ),
        _delete(f"{path}/{{id}}", service, f"delete_{one}", "write", f"Delete {a_thing}", errors=("in_use",)),
    ]


def _act(action: str, body: type[Struct], summary: str, errors: tuple[str, ...] = ("invalid_state",)) -> Endpoint:
    rpc = f"{action.replace('-', '_')}_booking"
    return _post(
        f"/bookings/{{id}}/{action}", "booking", rpc, "write", summary, body=body, answer=booking.Booking, errors=errors
    )


_A, _B, _W, _C, _G = "availability", "booking", "webhooks", "calendar_sync", "gateway"
_REFUSED = ("slot_not_offered", "slot_taken", "limit_reached", "booker_limit_reached", "inactive", "hold_expired")

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    _get("/profile", _G, "get_profile", "any", "The account behind the key", answer=accounts.Profile),
    _get("/me", _G, "get_me", "any", "The account behind the key", answer=accounts.Profile),
    _get(
        "/api-keys", _G, "list_api_keys", "admin", "List API keys", query=PageQuery, answer=accounts.ApiKey, lists=True
    ),
    _post(
        "/api-keys",
        _G,
        "create_api_key",
        "admin",
        "Create an API key",
        body=accounts.ApiKeyIn,
        answer=accounts.ApiKey,
        status=201,
    ),
    _get("/api-keys/{id}", _G, "get_api_key", "admin", "Read an API key", answer=accounts.ApiKey),
    _delete("/api-keys/{id}", _G, "delete_api_key", "admin", "Revoke an API key"),
    _post("/api-keys/{id}/roll", _G, "roll_api_key", "admin", "Give an API key a new secret", answer=accounts.ApiKey),
    _get(
        "/test-clock", _G, "get_test_clock", "read", "The test clock", answer=accounts.TestClock, errors=("not_found",)
    ),
    _post(
        "/test-clock",
        _G,
        "set_test_clock",
        "write",
        "Freeze, advance or release the test clock",
        body=accounts.TestClockIn,
        answer=accounts.TestClock,
        errors=("not_found", "invalid_state"),
    ),
    *_crud("/hosts", "host", _A, availability.HostIn, availability.Host),
    *_crud("/schedules", "schedule", _A, availability.ScheduleIn, availability.Schedule),
    *_crud("/locations", "location", _A, availability.LocationIn, availability.Location),
    *_crud("/resources", "resource", _A, availability.ResourceIn, availability.Resource),
    *_crud("/event-types", "event_type", _A, availability.EventTypeIn, availability.EventType),
    *_crud("/booking-pages", "booking_page", _A, availability.BookingPageIn, availability.BookingPage),
    _get(
        "/event-types/{id}/availability",
        _A,
        "availability",
        "read",
        "The slots that can be booked",
        query=availability.AvailabilityQuery,
        answer=availability.Availability,
    ),
    _get(
        "/event-types/{id}/availability/explain",
        _A,
        "explain",
        "read",
        "Why a start is or is not offered",
        query=availability.ExplainQuery,
        answer=availability.Explanation,
    ),
    _post(
        "/availability/query",
        _A,
        "query_availability",
        "read",
        "Slots of many event types in one call",
        body=availability.ManyQueries,
        answer=availability.ManyAnswers,
        idempotency="none",
        retry_unkeyed=True,
    ),
    _get("/holds", _B, "list_holds", "read", "List holds", query=PageQuery, answer=booking.Hold, lists=True),
    _post(
        "/holds",
        _B,
        "create_hold",
        "write",
        "Reserve a slot for a while",
        body=booking.HoldIn,
        answer=booking.Hold,
        status=201,
        idempotency="required",
        errors=_REFUSED,
    ),
    _get("/holds/{id}", _B, "get_hold", "read", "Read a hold", answer=booking.Hold),
    _delete("/holds/{id}", _B, "release_hold", "write", "Release a hold"),
    _get(
        "/bookings",
        _B,
        "list_bookings",
        "read",
        "List bookings",
        query=booking.BookingsQuery,
        answer=booking.Booking,
        lists=True,
    ),
    _post(
        "/bookings",
        _B,
        "create_booking",
        "write",
        "Book a slot",
        body=booking.BookingIn,
        answer=booking.Booking,
        status=201,
        idempotency="required",
        errors=_REFUSED,
    ),
    _get(
        "/bookings/{id}",
        _B,
        "get_booking",
        "read",
        "Read a booking",
        query=booking.BookingQuery,
        answer=booking.Booking,
    ),
    _patch(
        "/bookings/{id}",
        _B,
        "patch_booking",
        "write",
        "Change a booking",
        body=booking.BookingPatch,
        answer=booking.Booking,
        errors=("invalid_state",),
    ),
    _act("cancel", booking.CancelIn, "Cancel a booking", ("invalid_state", "cutoff_passed")),
    _act("reschedule", booking.RescheduleIn, "Move a booking", ("invalid_state", "cutoff_passed", *_REFUSED)),
    _act("approve", booking.Reason, "Approve a pending booking"),
    _act("decline", booking.Reason, "Decline a pending booking"),
    _act("no-show", booking.Reason, "Mark a booking as no-show"),
    _delete(
        "/bookings/{id}/no-show",
        _B,
        "undo_no_show",
        "write",
        "Undo a no-show",
        body=booking.Reason,
        answer=booking.Booking,
        status=200,
        errors=("invalid_state",),
    ),
    _act("complete", booking.Reason, "Complete a booking"),
    _act("reassign", booking.ReassignIn, "Give a booking to another host", ("invalid_state", *_REFUSED)),
    _act("payment", booking.PaymentIn, "Tell of a payment"),
    _act("recordings", booking.RecordingIn, "Tell of a recording"),
    _get(
        "/bookings/{id}/history",
        _B,
        "booking_history",
        "read",
        "What happened to a booking",
        query=PageQuery,
        answer=booking.HistoryEntry,
        lists=True,
    ),
    _get("/people", _B, "list_people", "admin", "List people", query=PageQuery, answer=booking.Person, lists=True),
    _get("/people/{id}", _B, "get_person", "admin", "Read a person", answer=booking.Person),
    _delete("/people/{id}", _B, "erase_person", "admin", "Erase a person"),
    _get(
        "/calendars",
        _C,
        "list_calendars",
        "read",
        "List calendars",
        query=PageQuery,
        answer=calendars.Calendar,
        lists=True,
    ),
    _post(
        "/calendars",
        _C,
        "create_calendar",
        "write",
        "Connect a calendar",
        body=calendars.CalendarIn,
        answer=calendars.Calendar,
        status=201,
    ),
    _get("/calendars/{id}", _C, "get_calendar", "read", "Read a calendar", answer=calendars.Calendar),
    _patch(
        "/calendars/{id}",
        _C,
        "patch_calendar",
        "write",
        "Change a calendar",
        body=calendars.CalendarPatch,
        answer=calendars.Calendar,
    ),
    _delete("/calendars/{id}", _C, "delete_calendar", "write", "Disconnect a calendar"),
    _post(
        "/calendars/{id}/sync", _C, "sync_calendar", "write", "Synchronise now", answer=calendars.Calendar, status=202
    ),
    _get(
        "/events",
        _C,
        "list_events",
        "read",
        "List calendar events",
        query=calendars.CalendarEventsQuery,
        answer=calendars.CalendarEvent,
        lists=True,
    ),
    _post(
        "/events",
        _C,
        "create_event",
        "write",
        "Block time of a host",
        body=calendars.CalendarEventIn,
        answer=calendars.CalendarEvent,
        status=201,
    ),
    _get("/events/{id}", _C, "get_event", "read", "Read a calendar event", answer=calendars.CalendarEvent),
    _patch(
        "/events/{id}",
        _C,
        "patch_event",
        "write",
        "Change an own block",
        body=calendars.CalendarEventIn,
        answer=calendars.CalendarEvent,
        errors=("invalid_state",),
    ),
    _delete("/events/{id}", _C, "delete_event", "write", "Delete an own block", errors=("invalid_state",)),
    _get(
        "/webhooks", _W, "list_webhooks", "hooks", "List webhooks", query=PageQuery, answer=webhooks.Webhook, lists=True
    ),
    _post(
        "/webhooks",
        _W,
        "create_webhook",
        "webhooks",
        "Subscribe to events",
        body=webhooks.WebhookIn,
        answer=webhooks.Webhook,
        status=201,
    ),
    _get("/webhooks/{id}", _W, "get_webhook", "hooks", "Read a webhook", answer=webhooks.Webhook),
    _patch(
        "/webhooks/{id}",
        _W,
        "patch_webhook",
        "webhooks",
        "Change a webhook",
        body=webhooks.WebhookIn,
        answer=webhooks.Webhook,
    ),
    _delete("/webhooks/{id}", _W, "delete_webhook", "webhooks", "Delete a webhook"),
    _post(
        "/webhooks/{id}/rotate-secret",
        _W,
        "rotate_secret",
        "webhooks",
        "Give a webhook a new secret",
        body=webhooks.RotateIn,
        answer=webhooks.Webhook,
    ),
    _post(
        "/webhooks/{id}/test",
        _W,
        "test_webhook",
        "webhooks",
        "Send a sample event",
        body=webhooks.TestIn,
        answer=webhooks.Delivery,
        status=202,
    ),
    _post(
        "/webhooks/{id}/replay",
        _W,
        "replay_webhook",
        "webhooks",
        "Deliver past events again",
        body=webhooks.ReplayIn,
        answer=webhooks.Replayed,
        status=202,
    ),
    _get(
        "/webhooks/{id}/deliveries",
        _W,
        "list_deliveries",
        "hooks",
        "List deliveries",
        query=webhooks.DeliveriesQuery,
        answer=webhooks.Delivery,
        lists=True,
    ),
    _get("/deliveries/{id}", _W, "get_delivery", "hooks", "Read a delivery", answer=webhooks.Delivery),
    _post(
        "/deliveries/{id}/retry",
        _W,
        "retry_delivery",
        "webhooks",
        "Deliver once more",
        answer=webhooks.Delivery,
        status=202,
    ),
    _get(
        "/changes",
        _W,
        "list_changes",
        "read",
        "Every public event of the account in order",
        query=webhooks.ChangesQuery,
        answer=webhooks.PublicEvent,
        lists=True,
    ),
)
