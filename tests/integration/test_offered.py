"""What is offered is bookable, and what is not is refused by a rule that explain names too: availability, explain and booking agree."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness.client import Client, booking, slot

from kalends_shared.testkit import scale

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
OFFICE = {"name": "Office", "timezone": "UTC", "weekly": [{"days": DAYS, "start": "09:00", "end": "17:00"}]}
STEPS = 12
# The order in which rules refuse: slots.md 10b's, with only-first before what is taken (api.md).
ORDER = [
    "working_hours", "away", "restriction", "grid", "fit", "notice", "window", "host_inactive", "first_of_day",
    "busy", "capacity", "resource", "limit",
]  # fmt: skip
CODES = dict.fromkeys(ORDER[:9], (422, "slot_not_offered")) | {
    "busy": (409, "slot_taken"),
    "capacity": (409, "slot_taken"),
    "resource": (409, "slot_taken"),
    "limit": (409, "limit_reached"),
}


# --- at random


async def draw(api: Client, rng: random.Random, day: str) -> tuple[str, str, dict[str, Any]]:
    """An event type of random settings, another one of the same hosts, and the first one's settings."""
    count = rng.choice([1, 1, 2, 3])
    hosts = []
    for _ in range(count):
        hours = {"start": rng.choice(["00:00", "08:30", "09:00"]), "end": rng.choice(["12:00", "17:00", "24:00"])}
        zone = rng.choice(["UTC", "Europe/Madrid", "Asia/Kathmandu", "America/New_York"])
        table: dict[str, Any] = {"name": "s", "timezone": zone, "weekly": [{"days": DAYS, **hours}]}
        if rng.random() < 0.2:
            table["away"] = [{"start_at": f"{day}T10:00:00Z", "end_at": f"{day}T13:10:00Z"}]
        hosts.append({"host_id": await api.host(table)})
    if rng.random() < 0.15:
        await api.ok("PATCH", f"/hosts/{rng.choice(hosts)['host_id']}", {"active": False})
    settings: dict[str, Any] = {
        "hosts": hosts,
        "capacity": rng.choice([1, 1, 3]),
        "duration_minutes": rng.choice([30, 60]),
        "slot_interval_minutes": rng.choice([None, 15, 30]),
        "slot_offset_minutes": rng.choice([0, 0, 15]),
        "buffer_before_minutes": rng.choice([0, 0, 15]),
        "buffer_after_minutes": rng.choice([0, 0, 30]),
        "only_first_slot_of_day": rng.random() < 0.2,
        "assignment": "single" if count == 1 else rng.choice(["any", "round_robin", "collective"]),
    }
    if settings["assignment"] in {"any", "round_robin"} and settings["capacity"] == 1:
        settings["required_hosts"] = rng.choice([1, 2])
    if rng.random() < 0.4:
        limits = [{"count": 2, "per": "day"}, {"minutes": 120, "per": "day"}, {"count": 3, "per": "week"}]
        settings["limits"] = rng.sample([*limits, {"count": 3, "per": "month"}, {"minutes": 180, "per": "year"}], 2)
    if rng.random() < 0.4:
        room = await api.ok("POST", "/resources", {"name": "Room", "quantity": rng.choice([1, 2])})
        settings["resource_ids"] = [room["id"]]
    if rng.random() < 0.2:
        narrow = OFFICE | {"weekly": [{"days": DAYS, "start": "07:15", "end": "14:00"}]}
        settings["restriction_schedule_id"] = (await api.ok("POST", "/schedules", narrow))["id"]
    if rng.random() < 0.2:
        # It ends some minutes after noon of that day, where no start is near.
        until_noon = datetime.fromisoformat(f"{day}T12:00:00Z") - datetime.now(UTC)
        settings["minimum_notice_minutes"] = until_noon // timedelta(minutes=1) + 7
    if rng.random() < 0.1:
        settings["booking_window"] = {"start_date": day, "end_date": day}
    other = {"hosts": hosts, "assignment": "any" if count > 1 else "single", "slot_interval_minutes": 15}
    return await api.event_type("", **settings), await api.event_type("", **other), settings


def refusing(explained: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """The first rule after which too few hosts remain, by what explain says of each."""
    left = explained["hosts"]
    needed = len(left) if settings["assignment"] == "collective" else settings.get("required_hosts", 1)
    for rule in ORDER:
        left = [host for host in left if verdict(host, rule)["ok"]]
        if len(left) < needed:
            return rule
    return None


def verdict(host: dict[str, Any], rule: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in host["rules"] if one["rule"] == rule]
    (only,) = found
    return only


async def test_availability_explain_and_booking_agree(api: Client) -> None:
    rng = random.Random(20260401)
    booked = worlds = 0
    refused: Counter[str] = Counter()
    least = scale.count(reduced=10, full=150)
    # Hosts of the same rank have their order by chance: until both answers have been seen often enough.
    while worlds < least or ((booked <= 10 or len(refused) <= 4) and worlds < 10 * least):
        worlds += 1
        midnight = slot(0)
        day = midnight[:10]
        kind, other, settings = await draw(api, rng, day)
        path = f"/event-types/{kind}/availability"
        seen: dict[str, str] = {}
        for _ in range(STEPS):
            seats = rng.choice([1, 1, 2]) if settings["capacity"] > 1 else 1
            looked = {"start": day, "end": day, "timezone": "UTC", "seats": seats}
            answer = await api.ok("GET", path, params=looked, headers=seen)
            offered = sorted(utc(s["start_at"]) for d in answer["days"] for s in d["slots"])
            if offered and rng.random() < 0.5:
                start = rng.choice(offered)
            else:
                start = text(datetime.fromisoformat(midnight) + timedelta(minutes=15 * rng.randrange(96)))
            if rng.random() < 0.2:
                # A booking of another event type fills the same hosts' time.
                made = await api.persist("/bookings", booking(other, start))
            else:
                asked = {"start_at": start, "seats": seats}
                explained = await api.ok("GET", f"{path}/explain", params=asked, headers=seen)
                body, where = booking(kind, start, seats=seats), "/bookings"
                if rng.random() < 0.3:
                    body, where = {"event_type_id": kind, "start_at": start, "seats": seats}, "/holds"
                made = await api.persist(where, body)
                rule = refusing(explained, settings)
                told = (made.text, settings, explained)
                assert (start in offered, explained["offered"]) == (rule is None, rule is None), told
                if rule is None:
                    assert made.status_code == 201, told
                    booked += 1
                else:
                    problem = made.json()
                    assert (made.status_code, problem["code"], problem["rule"]) == (*CODES[rule], rule), told
                    refused[rule] += 1
            if made.status_code == 201:
                seen = {"Kalends-Min-Position": made.headers["kalends-position"]}
    assert booked > 10
    assert len(refused) > 4, refused


# --- each rule for itself

Prepared = tuple[str, dict[str, str]]  # an event type, and the header of a read that sees all that came before


async def kind_of(api: Client, table: dict[str, Any] = OFFICE, **settings: Any) -> Prepared:
    return await api.event_type(await api.host(table), **settings), {}


async def away(api: Client) -> Prepared:
    times = {"start_at": slot(20), "end_at": text(datetime.fromisoformat(slot(20)) + timedelta(minutes=1))}
    return await kind_of(api, OFFICE | {"away": [times]})


async def restricted(api: Client) -> Prepared:
    narrow = await api.ok("POST", "/schedules", OFFICE | {"weekly": [{"days": DAYS, "start": "12:00", "end": "17:00"}]})
    return await kind_of(api, restriction_schedule_id=narrow["id"])


async def inactive(api: Client) -> Prepared:
    hosts = [await api.host(OFFICE), await api.host(OFFICE)]
    await api.ok("PATCH", f"/hosts/{hosts[1]}", {"active": False})
    return await api.event_type("", hosts=[{"host_id": one} for one in hosts], assignment="collective"), {}


async def busy(api: Client) -> Prepared:
    host = await api.host(OFFICE)
    seen = await made(api, booking(await api.event_type(host, slot_interval_minutes=15, duration_minutes=15), slot(20)))
    return await api.event_type(host), seen


async def blocked(api: Client) -> Prepared:
    """From within a minute on: external busy time is widened to whole minutes."""
    host = await api.host(OFFICE)
    times = {"start_at": slot(20).replace(":00Z", ":59Z"), "end_at": slot(21)}
    answer = await api.persist("/events", {"host_id": host, "title": "Dentist", **times})
    assert answer.status_code == 201, answer.text
    return await api.event_type(host), {"Kalends-Min-Position": answer.headers["kalends-position"]}


async def full(api: Client) -> Prepared:
    kind, _ = await kind_of(api, capacity=2)
    return kind, await made(api, booking(kind, slot(20), seats=2))


async def without_a_room(api: Client) -> Prepared:
    room = (await api.ok("POST", "/resources", {"name": "Room"}))["id"]
    other, _ = await kind_of(api, resource_ids=[room])
    seen = await made(api, booking(other, slot(20)))
    return (await kind_of(api, resource_ids=[room]))[0], seen


async def limited(api: Client) -> Prepared:
    kind, _ = await kind_of(api, limits=[{"count": 1, "per": "day"}])
    return kind, await made(api, booking(kind, slot(22)))


async def only_first(api: Client) -> Prepared:
    """The start is taken too: only-first is the refusal that is told before that."""
    host = await api.host(OFFICE)
    seen = await made(api, booking(await api.event_type(host), slot(20)))
    return await api.event_type(host, only_first_slot_of_day=True), seen


async def made(api: Client, body: dict[str, Any]) -> dict[str, str]:
    answer = await api.persist("/bookings", body)
    assert answer.status_code == 201, answer.text
    return {"Kalends-Min-Position": answer.headers["kalends-position"]}


@pytest.mark.parametrize(
    ("rule", "prepared", "settings", "start", "cause"),
    [
        ("working_hours", kind_of, {}, 10, "schedule"),
        ("away", away, {}, 20, "schedule"),
        ("restriction", restricted, {}, 20, "schedule"),
        ("grid", kind_of, {"slot_offset_minutes": 10}, 20, "schedule"),
        ("fit", kind_of, {"duration_minutes": 60, "slot_interval_minutes": 30}, 33, "schedule"),
        ("notice", kind_of, {"minimum_notice_minutes": 7 * 1440}, 20, "event_type"),
        ("window", kind_of, {"booking_window": {"rolling_days": 1}}, 20, "event_type"),
        ("host_inactive", inactive, {}, 20, "host"),
        ("first_of_day", only_first, {}, 20, None),
        ("busy", busy, {}, 20, "booking"),
        ("busy", blocked, {}, 20, "calendar_event"),
        ("capacity", full, {}, 20, "booking"),
        ("resource", without_a_room, {}, 20, "booking"),
        ("limit", limited, {}, 20, "booking"),
    ],
)
async def test_each_rule_refuses_by_its_name(
    api: Client,
    rule: str,
    prepared: Callable[..., Awaitable[Prepared]],
    settings: dict[str, Any],
    start: int,
    cause: str | None,
) -> None:
    at = slot(start)
    kind, seen = await prepared(api, **settings)
    path = f"/event-types/{kind}/availability"
    explained = await api.ok("GET", f"{path}/explain", params={"start_at": at}, headers=seen)
    assert not explained["offered"]
    (said,) = [one for one in (verdict(host, rule) for host in explained["hosts"]) if not one["ok"]]
    assert said["detail"]
    assert (said["cause"] and said["cause"]["type"]) == cause
    assert at not in await api.offered(kind, at)

    refused = await api.persist("/bookings", booking(kind, at))
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["rule"]) == (*CODES[rule], rule), refused.text
    if refused.status_code == 422:
        assert [error["pointer"] for error in problem["errors"]] == ["#/start_at"]
    held = await api.persist("/holds", {"event_type_id": kind, "start_at": at})
    assert (held.status_code, held.json()["rule"]) == (refused.status_code, rule)
    # The next starts are named, where they can be told in time, and are offered indeed.
    others = [utc(one["start_at"]) for one in problem["alternatives"]]
    assert len(others) <= (0 if rule in {"window", "host_inactive"} else 5)
    for day in {one[:10] for one in others}:
        assert {one for one in others if one[:10] == day} <= await api.offered(kind, day)


async def test_a_bookers_own_limit_is_seen_by_booking_alone(api: Client) -> None:
    kind, _ = await kind_of(api, max_active_per_booker=1)
    await made(api, booking(kind, slot(20)))
    assert slot(21) in await api.offered(kind, slot(21))
    refused = await api.persist("/bookings", booking(kind, slot(21), booker_email="ADA@Example.test"))
    assert (refused.status_code, refused.json()["code"]) == (409, "booker_limit_reached")
    await made(api, booking(kind, slot(21), booker_email="bob@example.test"))


def utc(start_at: str) -> str:
    return text(datetime.fromisoformat(start_at))


def text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
