"""What is offered is bookable, and what is not is refused by a rule that explain names too: availability, explain and booking agree."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.client import Client, booking, slot

from kalends_shared.testkit import scale

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
STEPS = 12


async def draw(api: Client, rng: random.Random) -> tuple[str, str, int]:
    """An event type of random settings, another one of the same hosts, and the first one's capacity."""
    count = rng.choice([1, 1, 2, 3])
    hosts = []
    for _ in range(count):
        hours = {"start": rng.choice(["00:00", "08:30", "09:00"]), "end": rng.choice(["12:00", "17:00", "24:00"])}
        zone = rng.choice(["UTC", "Europe/Madrid", "Asia/Kathmandu", "America/New_York"])
        hosts.append({"host_id": await api.host({"name": "s", "timezone": zone, "weekly": [{"days": DAYS, **hours}]})})
    capacity = rng.choice([1, 1, 3])
    settings: dict[str, Any] = {
        "hosts": hosts,
        "capacity": capacity,
        "duration_minutes": rng.choice([30, 60]),
        "slot_interval_minutes": rng.choice([None, 15, 30]),
        "buffer_before_minutes": rng.choice([0, 0, 15]),
        "buffer_after_minutes": rng.choice([0, 0, 30]),
        "only_first_slot_of_day": rng.random() < 0.2,
        "assignment": "single" if count == 1 else rng.choice(["any", "round_robin", "collective"]),
    }
    if settings["assignment"] in {"any", "round_robin"} and capacity == 1:
        settings["required_hosts"] = rng.choice([1, 2])
    if rng.random() < 0.4:
        limits = [{"count": 2, "per": "day"}, {"minutes": 120, "per": "day"}, {"count": 4, "per": "week"}]
        settings["limits"] = [rng.choice(limits)]
    if rng.random() < 0.4:
        room = await api.ok("POST", "/resources", {"name": "Room", "quantity": rng.choice([1, 2])})
        settings["resource_ids"] = [room["id"]]
    other = {"hosts": hosts, "assignment": "any" if count > 1 else "single", "slot_interval_minutes": 15}
    return await api.event_type("", **settings), await api.event_type("", **other), capacity


async def test_availability_explain_and_booking_agree(api: Client) -> None:
    rng = random.Random(20260401)
    refused, booked = 0, 0
    for _ in range(scale.count(reduced=8, full=80)):
        kind, other, capacity = await draw(api, rng)
        seen: dict[str, str] = {}
        for _ in range(STEPS):
            seats = rng.choice([1, 1, 2]) if capacity > 1 else 1
            start, day = slot(0), slot(0)[:10]
            looked = {"start": day, "end": day, "timezone": "UTC", "seats": seats}
            path = f"/event-types/{kind}/availability"
            answer = await api.ok("GET", path, params=looked, headers=seen)
            offered = sorted(utc(s["start_at"]) for d in answer["days"] for s in d["slots"])
            if offered and rng.random() < 0.5:
                start = rng.choice(offered)
            else:
                start = text(datetime.fromisoformat(start) + timedelta(minutes=15 * rng.randrange(96)))
            if rng.random() < 0.2:
                # A booking of another event type fills the same hosts' time.
                answer = await api.call("POST", "/bookings", booking(other, start))
            else:
                explained = await api.ok(
                    "GET", f"{path}/explain", params={"start_at": start, "seats": seats}, headers=seen
                )
                body, where = booking(kind, start, seats=seats), "/bookings"
                if rng.random() < 0.3:
                    body, where = {"event_type_id": kind, "start_at": start, "seats": seats}, "/holds"
                answer = await api.call("POST", where, body)
                made = answer.status_code == 201
                assert (start in offered, explained["offered"]) == (made, made), (start, answer.text, explained)
                booked, refused = booked + made, refused + (not made)
            if answer.status_code == 201:
                seen = {"Kalends-Min-Position": answer.headers["kalends-position"]}
    assert min(booked, refused) > 10


def utc(start_at: str) -> str:
    return text(datetime.fromisoformat(start_at))


def text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
