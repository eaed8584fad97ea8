"""A world worked out by hand, and the question about it; the oracle must give the same answer, so it is held to it too."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from kalends_availability.domain.rules import Ask
from kalends_shared.contracts.availability import (
    BookingWindow,
    EventType,
    EventTypeHost,
    Host,
    Resource,
    Schedule,
    WeeklyWindow,
)

from .facts import answer, facts_of, plan_of
from .oracle import Oracle, Question, Taken, World, written

MADE: dict[str, Any] = {
    "created_at": datetime(2020, 1, 1, tzinfo=UTC),
    "updated_at": datetime(2020, 1, 1, tzinfo=UTC),
    "version": 1,
}
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MONDAY = "2026-06-01"
EARLY = datetime(2000, 1, 1, tzinfo=UTC)
ANY_DATE = BookingWindow(start_date=date(2000, 1, 1), end_date=date(2099, 1, 1))


def schedule(zone: str = "UTC", *hours: tuple[str, str], **more: Any) -> Schedule:
    weekly = [WeeklyWindow(list(EVERY_DAY), start, end) for start, end in hours]  # type: ignore[arg-type]
    return Schedule(name="s", timezone=zone, weekly=weekly, **{"id": "sch_own", **MADE, **more})


def nine_to(end: str, zone: str = "UTC", **more: Any) -> Schedule:
    return schedule(zone, ("09:00", end), **more)


def slots(
    tables: Schedule | Mapping[str, Schedule | None],
    day: str = MONDAY,
    last: str | None = None,
    *,
    zone: str = "UTC",
    now: datetime = EARLY,
    seats: int = 1,
    host_id: str | None = None,
    ignored: frozenset[str] = frozenset(),
    taken: Sequence[Taken] = (),
    external: Mapping[str, list[tuple[datetime, datetime]]] | None = None,
    others: Sequence[Schedule] = (),
    rooms: Mapping[str, int] | None = None,
    people: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> dict[str, int]:
    """The starts offered, as their instants (`02T09:00` is the 2nd, 09:00 UTC), with the seats left."""
    named = {"hst_a": tables} if isinstance(tables, Schedule) else dict(tables)
    schedules = {f"sch_{id_}": replace(table, id=f"sch_{id_}") for id_, table in named.items() if table is not None}
    minutes = settings.setdefault("duration_minutes", 30)
    settings.setdefault("booking_window", ANY_DATE)
    settings.setdefault("assignment", "single" if len(named) == 1 else "any")
    settings.setdefault("hosts", [EventTypeHost(id_) for id_ in named])
    kind = EventType(id="evt_asked", title="t", slug="t", durations=[minutes], resource_ids=list(rooms or {}), **settings, **MADE)  # fmt: skip
    world = World(
        kind,
        {
            id_: Host(id=id_, name="h", **{"timezone": "UTC", "schedule_id": f"sch_{id_}" if table else None, **(people or {}).get(id_, {})}, **MADE)
            for id_, table in named.items()
        },
        schedules | {other.id: other for other in others},
        {id_: Resource(id=id_, name=id_, quantity=n, **MADE) for id_, n in (rooms or {}).items()},
        list(taken),
        dict(external or {}),
    )  # fmt: skip
    first, end = date.fromisoformat(day), date.fromisoformat(last or day)
    ask = Ask(now=now, minutes=minutes, seats=seats, host_id=host_id, ignored=ignored)
    body = answer(plan_of(world), facts_of(world), ask, zone, first, end)
    found = [(datetime.fromisoformat(s["start_at"]), s["seats_left"]) for d in body["days"] for s in d["slots"]]
    ends = [s["end_at"] for d in body["days"] for s in d["slots"]]
    assert ends == [written(start + timedelta(minutes=minutes), zone) for start, _ in found]
    assert found == sorted(found)
    assert [d["date"] for d in body["days"]] == [str(first + timedelta(n)) for n in range((end - first).days + 1)]
    oracle = Oracle(world, Question(now, zone, first, end, minutes, seats, host_id, ignored))
    assert found == sorted(oracle.offered())
    return {f"{at.astimezone(UTC):%dT%H:%M}": left for at, left in found}


def starts(*args: Any, **settings: Any) -> list[str]:
    return list(slots(*args, **settings))


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}:00Z")


def booked(
    start: str, minutes: int = 30, *host_ids: str, id_: str = "bkg_1", kind: str = "evt_asked", **more: Any
) -> Taken:
    return Taken(
        id_, kind, at(start), at(start) + timedelta(minutes=minutes), list(host_ids) or ["hst_a"], **more
    )  # fmt: skip
