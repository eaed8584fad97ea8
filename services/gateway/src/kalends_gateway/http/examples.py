"""Examples of bodies, for the document and its pages; a test reads each as the service would."""

from typing import Any, Final

import msgspec

from kalends_shared.contracts import accounts, availability, booking, calendars, webhooks

_EVENT_TYPE: Final = "evt_01jv2m9d7kfx4a8p0s6w3c5e1r"
_HOST: Final = "hst_01jv2m8q2tfb9r4y7n1d6h3k0z"
_HOLD: Final = "hld_01jv2mavt5e3k8c0q7x9b2f4gd"

BODIES: Final[dict[type[msgspec.Struct], dict[str, Any]]] = {
    accounts.ApiKeyIn: {"name": "Back end", "scopes": ["write"], "rate_limits": {"per_minute": 100, "per_hour": 1000}},
    accounts.TestClockIn: {"advance_seconds": 3600},
    availability.HostIn: {"name": "Grace Hopper", "email": "grace@example.com", "timezone": "America/New_York"},
    availability.ScheduleIn: {
        "name": "Office hours",
        "timezone": "America/New_York",
        "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "09:00", "end": "17:00"}],
    },
    availability.LocationIn: {"name": "Main shop", "kind": "in_person", "address": "1 High Street"},
    availability.ResourceIn: {"name": "Treatment room", "quantity": 2},
    availability.EventTypeIn: {
        "title": "First visit",
        "duration_minutes": 30,
        "hosts": [{"host_id": _HOST}],
        "buffer_after_minutes": 10,
    },
    availability.BookingPageIn: {"slug": "visits", "title": "Visit us", "event_type_ids": [_EVENT_TYPE]},
    availability.ManyQueries: {"start": "2027-04-10", "end": "2027-04-10", "queries": [{"event_type_id": _EVENT_TYPE}]},
    booking.HoldIn: {"event_type_id": _EVENT_TYPE, "start_at": "2027-04-10T09:00:00Z", "ttl_seconds": 300},
    booking.BookingIn: {
        "event_type_id": _EVENT_TYPE,
        "start_at": "2027-04-10T09:00:00Z",
        "booker_name": "Ada Lovelace",
        "booker_email": "ada@example.com",
        "hold_id": _HOLD,
    },
    booking.CancelIn: {"reason": "Ill"},
    booking.RescheduleIn: {"start_at": "2027-04-11T09:00:00Z", "reason": "Train late"},
    booking.ReassignIn: {"host_id": _HOST},
    booking.PaymentIn: {"status": "paid", "amount": 5000, "currency": "EUR", "reference": "pi_1"},
    booking.RecordingIn: {"url": "https://example.com/recordings/1", "duration_seconds": 1800},
    calendars.CalendarIn: {
        "host_id": _HOST,
        "provider": "caldav",
        "url": "https://dav.example.com/grace/office/",
        "username": "grace",
        "password": "app-password",
        "writes_bookings": True,
    },
    calendars.CalendarEventIn: {
        "host_id": _HOST,
        "title": "Dentist",
        "start_at": "2027-04-10T09:00:00Z",
        "end_at": "2027-04-10T10:00:00Z",
    },
    webhooks.WebhookIn: {
        "url": "https://example.com/hooks/kalends",
        "events": ["booking.confirmed", "booking.cancelled"],
    },
    webhooks.TestIn: {"type": "booking.confirmed"},
    webhooks.ReplayIn: {"start_at": "2027-04-01T00:00:00Z", "end_at": "2027-04-02T00:00:00Z", "only_failed": True},
}
