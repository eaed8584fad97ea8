import json
import subprocess
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalends_shared.contracts import jsjson
from kalends_shared.contracts.webhooks import EVENT_TYPES
from kalends_webhooks.domain import facts, payloads
from kalends_webhooks.domain.derive import derive
from kalends_webhooks.domain.payloads import Event
from kalends_webhooks.domain.samples import sample

from .interpreters import interpreter
from .making import HOST, NOW, of_booking, person, state
from .test_subscription import subscription

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
KEYS = st.one_of(WORDS, st.integers(0, 2**33).map(str))
JSON = st.dictionaries(
    KEYS,
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**60), 2**60),
            st.floats(allow_nan=False, allow_infinity=False),
            WORDS,
        ),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
        max_leaves=8,
    ),
    max_size=5,
)


def event(kind: str = "booking.created", index: int = 1, data: Any = None, **fields: Any) -> Event:
    booking = state(**fields)
    made = derive(of_booking(kind, booking, data))[index]
    return Event(
        id=made.id,
        type=made.type,
        tenant_id=made.tenant_id,
        created_at=made.created_at,
        facts=facts.read(made.data, made.attendees),
    )


def sampled(kind: str) -> Event:
    made = sample(kind, subscription(), datetime(2026, 4, 10, 9, 0, 0, 123456, tzinfo=UTC))
    return Event(
        id=made.id, type=kind, tenant_id=made.tenant_id, created_at=made.created_at, facts=facts.read(made.data, None)
    )


def test_a_sample_says_what_its_type_is_about():
    moved, handed_over = (sampled(kind).facts.previous or {} for kind in ("booking.rescheduled", "booking.reassigned"))
    assert (set(moved), set(handed_over)) == ({"start_at", "end_at"}, {"host_id", "host_ids"})
    disabled = sampled("webhook.disabled").facts
    assert disabled.webhook is not None
    assert (disabled.webhook.enabled, disabled.webhook.disabled_reason) == (False, disabled.reason)


def test_a_host_is_told_as_it_is_public():
    host = json.loads(payloads.body("kalends", event()))["data"]["host"]
    assert host == {
        "id": HOST,
        "name": "Grace Hopper",
        "email": "grace@example.test",
        "timezone": "Europe/Madrid",
    }


def test_the_default_payload():
    told = event()
    body = json.loads(payloads.body("kalends", told))
    assert list(body) == ["id", "type", "created_at", "account_id", "mode", "data"]
    assert (body["id"], body["type"], body["created_at"]) == (told.id, "booking.confirmed", "2026-04-10T09:00:00Z")
    assert (body["account_id"], body["mode"]) == ("acc_test", "live")
    assert list(body["data"]) == ["booking", "event_type", "host", "location", "previous"]
    booking = body["data"]["booking"]
    assert (booking["booker_name"], booking["booker_email"], booking["status"]) == (
        "Ada Lovelace King",
        "ada@example.test",
        "confirmed",
    )
    assert (booking["host_id"], booking["location_id"]) == (body["data"]["host"]["id"], body["data"]["location"]["id"])
    assert body["data"]["event_type"]["title"] == "Visit"
    assert body["data"]["previous"] is None
    assert "policies" not in booking
    assert "person_version" not in booking


def test_payment_and_recording_have_their_own_members():
    payment = {"previous": {"payment": None}}
    paid = event("payment.updated", 0, payment, payment=None)
    assert set(json.loads(payloads.body("kalends", paid))["data"]) == {"booking", "payment"}
    recorded = event("recording.ready", 0, {"recording": {"url": "https://x.test/r", "duration_seconds": None}})
    data = json.loads(payloads.body("kalends", recorded))["data"]
    assert data["recording"] == {"url": "https://x.test/r", "duration_seconds": None}
    assert set(data) == {"booking", "recording"}


def test_the_service_payload():
    told = event()
    body = json.loads(payloads.body("service", told))
    assert (body["id"], body["event"], body["timestamp"]) == (told.id, "booking.created", "2026-04-10T09:00:00+00:00")
    data = body["data"]
    assert data["client"] == {"first_name": "Ada", "last_name": "Lovelace King", "email": "ada@example.test"}
    assert data["service"]["name"] == "Visit"
    assert (data["starts_at"], data["ends_at"]) == ("2026-04-11T09:00:00+00:00", "2026-04-11T09:30:00+00:00")
    assert data["location"]["name"] == "Main Shop"
    assert set(data) == {"id", "status", "service", "client", "starts_at", "ends_at", "location"}
    assert json.loads(payloads.body("service", event(location=None)))["data"]["location"] is None
    assert set(json.loads(payloads.body("service", sampled("hold.expired")))["data"]) == {"hold"}


def test_the_trigger_payload():
    body = json.loads(payloads.body("trigger", event()))
    assert list(body) == ["trigger", "triggerEvent", "createdAt", "payload"]
    assert (body["trigger"], body["triggerEvent"]) == ("BOOKING_CREATED", "BOOKING_CREATED")
    payload = body["payload"]
    assert (payload["title"], payload["startTime"], payload["endTime"]) == (
        "Visit",
        "2026-04-11T09:00:00Z",
        "2026-04-11T09:30:00Z",
    )
    assert payload["attendee"] == {
        "name": "Ada Lovelace King",
        "email": "ada@example.test",
        "timeZone": "Europe/London",
    }
    assert [one["name"] for one in payload["attendees"]] == ["Ada Lovelace King", "Bob"]
    assert "rejectionReason" not in payload
    declined = json.loads(payloads.body("trigger", event("booking.declined", 0, status="declined", reason="full")))
    assert declined["payload"]["rejectionReason"] == "full"
    recorded = json.loads(payloads.body("trigger", sampled("recording.ready")))
    assert recorded["payload"]["downloadLink"] == recorded["payload"]["recording"]["url"]
    assert payload["organizer"] == {"name": "Grace Hopper", "email": "grace@example.test", "timeZone": "Europe/Madrid"}
    assert (payload["location"], payload["status"], payload["metadata"]["plan"]) == ("Main Shop", "confirmed", "gold")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("booking.pending", "BOOKING_REQUESTED"),
        ("booking.confirmed", "BOOKING_CREATED"),
        ("booking.declined", "BOOKING_REJECTED"),
        ("booking.cancelled", "BOOKING_CANCELLED"),
        ("booking.no_show", "BOOKING_NO_SHOW"),
        ("meeting.started", "MEETING_STARTED"),
        ("hold.expired", "HOLD_EXPIRED"),
    ],
)
def test_names_of_triggers(kind: str, name: str):
    assert payloads.trigger_name(kind) == name


@pytest.mark.parametrize("payload", ["kalends", "service", "trigger"])
@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_type_has_a_sample_in_every_payload(kind: str, payload: str):
    body = payloads.body(payload, sampled(kind))
    assert jsjson.canonical(json.loads(body)) == body


@given(metadata=JSON, answers=JSON, name=WORDS)
def test_bodies_are_as_javascript_writes_them(metadata: Any, answers: Any, name: str):
    booking = state(metadata=msgspec.Raw(jsjson.canonical(metadata)))
    told = person(booking, answers=msgspec.Raw(jsjson.canonical(answers)), name=name or "x")
    made = derive(
        msgspec.structs.replace(
            of_booking("booking.updated", booking, {"previous": {"metadata": msgspec.Raw(jsjson.canonical(answers))}}),
            people={booking.person_version: msgspec.Raw(msgspec.json.encode(told))},
        )
    )[0]
    whole = Event(
        id=made.id,
        type=made.type,
        tenant_id=made.tenant_id,
        created_at=NOW,
        facts=facts.read(made.data, made.attendees),
    )
    for payload in ("kalends", "service", "trigger"):
        body = payloads.body(payload, whole)
        assert jsjson.canonical(json.loads(body)) == body
        assert b"\n" not in body


PYTHON = "import sys,json;from kalends_shared.contracts.jsjson import canonical as c;sys.stdout.buffer.write(b'\\n'.join(c(json.loads(l)) for l in sys.stdin.buffer.read().split(b'\\n')))"
NODE = "process.stdout.write(require('fs').readFileSync(0,'utf8').split('\\n').map(b=>JSON.stringify(JSON.parse(b))).join('\\n'))"
WRITERS = {"python": ["-c", PYTHON], "node": ["-e", NODE]}


@pytest.mark.parametrize("language", WRITERS)
def test_what_parses_and_writes_again_gets_the_same_bytes(language: str):
    """Our own rule, and JavaScript itself."""
    writer = [interpreter(language), *WRITERS[language]]
    odd = jsjson.canonical(
        {
            "b": 1e21,
            "10": 5.0,
            "2": "“\u2028\x7f\x1f”",
            "a": [1e-7, -0.0, 0.1, 123456789012345680000],
            "é": {"z": 1, "0": 2},
        }
    )
    told = event(metadata=msgspec.Raw(odd))
    bodies = [payloads.body(payload, told) for payload in ("kalends", "service", "trigger")]
    done = subprocess.run(writer, input=b"\n".join(bodies), capture_output=True, check=True, timeout=120)
    assert done.stdout.split(b"\n") == bodies
