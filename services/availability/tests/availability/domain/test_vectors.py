"""Another engine's cases (vectors/), each asserted by our rules. Where slots.md differs from that engine, ours is asserted and why is told."""

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kalends_availability.domain.bits import Frame, filled, lasting, merged, ones
from kalends_availability.domain.busy import (
    Counted,
    External,
    ExternalBusy,
    Facts,
    Reservation,
    Reservations,
    Tally,
    unfree,
)
from kalends_availability.domain.memo import bit_memo
from kalends_availability.domain.rules import Ask, bookable_dates
from kalends_availability.domain.timetable import Timetable, away_time
from kalends_availability.domain.zones import DAY, date_of, day_of, instant_of, minute_of, zone
from kalends_shared.contracts.availability import (
    Away,
    BookingWindow,
    EventType,
    EventTypeHost,
    Host,
    Limit,
    Override,
    Schedule,
    Travel,
    WeeklyWindow,
    Window,
)

from .facts import answer, plan_of
from .oracle import World

FOLDER = Path(__file__).parents[2] / "vectors"
SLOTS: dict[str, Any] = {c["id"]: c for c in json.loads((FOLDER / "slot-cases.json").read_text("utf-8"))["cases"]}
DST: dict[str, Any] = {c["id"]: c for c in json.loads((FOLDER / "dst-cases.json").read_text("utf-8"))["cases"]}
MADE: dict[str, Any] = {
    "created_at": datetime(2020, 1, 1, tzinfo=UTC),
    "updated_at": datetime(2020, 1, 1, tzinfo=UTC),
    "version": 1,
}
WEEK = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
ALL = list(range(7))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def minute(text: str) -> int:
    """The vectors write the end of a day as its last second or millisecond."""
    found = at(text)
    return minute_of(found + timedelta(seconds=1)) if found.second == 59 else minute_of(found)


def day_end(text: str) -> str:
    return "24:00" if text == "23:59" else text


def intervals(pairs: Iterable[list[str]]) -> list[tuple[int, int]]:
    return [(minute(a), minute(b)) for a, b in pairs]


def schedule(case: dict[str, Any], id_: str = "sch_0") -> Schedule:
    """A schedule of the vectors; weekly days count from Sunday, and 23:59 ends a day."""
    return Schedule(
        id=id_, name="s", timezone=case["tz"],
        weekly=[WeeklyWindow([WEEK[d] for d in w["days"]], w["from"], day_end(w["to"])) for w in case["weekly"]],
        overrides=[
            Override(date.fromisoformat(o["date"]), [Window(o["from"], day_end(o["to"]))]) for o in case["overrides"]
        ],
        away=[Away(start_date=date.fromisoformat(d), end_date=date.fromisoformat(d)) for d in case.get("ooo_dates", [])],
        travel=[_travel(t) for t in case["travel"]],
        **MADE,
    )  # fmt: skip


def _travel(one: dict[str, str]) -> Travel:
    # Written there as instants: the dates are those of Berlin, in which that schedule's days begin.
    berlin = zone("Europe/Berlin")
    first = berlin.local_day(minute_of(at(one["from"])))
    last = berlin.local_day(minute_of(at(one["to"]))) if "to" in one else first + 400
    return Travel(date_of(first), date_of(last), one["tz"])


def event_type(**settings: Any) -> EventType:
    settings = {
        "hosts": [EventTypeHost("hst_101")],
        "booking_window": None,
        "durations": [settings["duration_minutes"]],
    } | settings
    return EventType(id="evt_1", title="t", slug="t", **settings, **MADE)


# --- a day on which the clocks change


@pytest.mark.parametrize("id_", DST)
def test_a_block_on_a_day_of_change(id_: str) -> None:
    case = DST[id_]
    weekly = [WeeklyWindow(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], case["from"], case["to"])]
    table = Timetable(Schedule(id="sch_0", name="s", timezone=case["tz"], weekly=weekly, **MADE), bit_memo())
    day = day_of(date.fromisoformat(case["date"]))
    low, high = intervals([case["correct"]])[0]
    if case["to"] == "23:59":
        # slots.md 1: 23:59 is 23:59; a day ends at 24:00. That other engine reads 23:59 as the end of the day.
        high -= 1
    assert table.windows(day, day) == [(low, high)]


# --- schedule_to_ranges

RANGES = [i for i, c in SLOTS.items() if c["kind"] == "schedule_to_ranges"]


@pytest.mark.parametrize("id_", RANGES)
def test_working_windows(id_: str) -> None:
    case = SLOTS[id_]["input"]
    made = schedule(case)
    table = Timetable(made, bit_memo())
    low, high = minute(case["window"][0]), minute(case["window"][1])
    windows = table.windows(low // DAY - 2, high // DAY + 2)
    if id_ == "ranges-10":
        # slots.md 2: away beats an override, so the day is gone for every kind of event type, not for team ones alone.
        gone = away_time(made.away, zone(made.timezone))
        windows = [w for w in windows if not any(a < w[1] and w[0] < b for a, b in gone)]
        want = intervals(SLOTS[id_]["expected"]["ranges_without_ooo"])
    else:
        want = intervals(SLOTS[id_]["expected"]["ranges"])
    found = [w for w in windows if w[0] < high and low < w[1]]
    if id_ == "ranges-04":
        # The last window of that list is cut at the end of its question; ours stays whole.
        want = [(a, b) for a, b in want if b < high] + [w for w in found if w[1] >= high]
    assert found == want


# --- interval algebra: subtract, intersect, conflict


def test_subtract() -> None:
    case = SLOTS["sub-01"]
    source, exclude = intervals(case["input"]["source"]), intervals(case["input"]["exclude"])
    frame = Frame.over(source[0][0], source[-1][1])
    left = filled(frame, source) & ~filled(frame, merged(exclude))
    assert spans(frame, left) == intervals(case["expected"]["ranges"])


def test_intersect() -> None:
    case = SLOTS["int-01"]
    sets = [intervals(one) for one in case["input"]["sets"]]
    frame = Frame.over(sets[0][0][0], sets[1][0][1])
    assert spans(frame, filled(frame, sets[0]) & filled(frame, sets[1])) == intervals(case["expected"]["ranges"])


def test_conflict() -> None:
    case = SLOTS["conf-01"]["input"]
    start = minute(case["slot_start"])
    frame = Frame.over(start, start + 1)
    refused = unfree(frame, intervals(case["busy"]), 0, case["length_min"])
    assert bool(refused >> (start - frame.base) & 1) is SLOTS["conf-01"]["expected"]["conflict"]


def spans(frame: Frame, minutes: int) -> list[tuple[int, int]]:
    return merged((frame.base + at_, frame.base + at_ + 1) for at_ in ones(minutes))


# --- ranges_to_slots: working time given as ranges, here as overrides of UTC dates


@pytest.mark.parametrize("id_", [i for i, c in SLOTS.items() if c["kind"] == "ranges_to_slots"])
def test_slots_of_ranges(id_: str) -> None:
    case = SLOTS[id_]["input"]
    windows: dict[date, list[Window]] = {}
    for low, high in intervals(case["free"]):
        day = low // DAY
        clock = [f"{m // 60:02}:{m % 60:02}" for m in (low - day * DAY, high - day * DAY)]
        windows.setdefault(date_of(day), []).append(Window(*clock))
    made = Schedule(
        id="sch_0", name="s", timezone="UTC", overrides=[Override(d, w) for d, w in windows.items()], **MADE
    )
    kind = event_type(
        duration_minutes=case["length_min"], slot_interval_minutes=case["interval_min"],
        slot_offset_minutes=case["offset_min"], minimum_notice_minutes=case["min_notice_min"],
        booking_window=BookingWindow(start_date=min(windows), end_date=max(windows)),
    )  # fmt: skip
    found = offered(kind, {"hst_101": made}, at(case["now"]), case["booker_tz"], min(windows), max(windows))
    want = [at(s) for s in SLOTS[id_]["expected"]["slots"]]
    if id_ == "slots-07":
        # slots.md 3: the grid begins with the window, not with the next whole hour: 09:15 to 11:00 gives 09:15.
        want = [at(f"2021-06-{d}T{t}:00Z") for d in (21, 22) for t in ("09:15", "11:30", "12:30")]
    if id_ == "slots-10":
        # The same: 07:30 to 09:30 in Kolkata gives 07:30 and 08:30, whatever the booker's zone.
        want = [at("2023-07-13T02:00:00Z"), at("2023-07-13T03:00:00Z")]
    assert found == want


# --- schedule_to_slots: whole questions


@pytest.mark.parametrize("id_", [i for i, c in SLOTS.items() if c["kind"] == "schedule_to_slots"])
def test_slots(id_: str) -> None:
    case = SLOTS[id_]["input"]
    event = case["event"]
    ids = [f"hst_{h['id']}" for h in case["hosts"]]
    tables = {id_: schedule(h["schedule"], f"sch_{id_}") for id_, h in zip(ids, case["hosts"], strict=True)}
    kind = event_type(
        duration_minutes=event["length_min"], slot_interval_minutes=event.get("interval_min"),
        buffer_before_minutes=event.get("buffer_before_min", 0), buffer_after_minutes=event.get("buffer_after_min", 0),
        hosts=[EventTypeHost(h) for h in ids], assignment=event.get("assignment", "single"),
        limits=[Limit(count=n, per=per) for per, n in event.get("limit_count", {}).items()],
        booking_window=booking_window(event.get("period")),
    )  # fmt: skip
    booker = zone(case["booker_tz"])
    first, last = (booker.local_day(minute_of(at(w))) for w in case["window"])
    found = offered(
        kind, tables, at(case["now"]), case["booker_tz"], date_of(first), date_of(last),
        bookings=[b for b in case["bookings"] if b["status"] in {"accepted", "pending"}],
        holds=case["holds"], external=case["external_busy"],
    )  # fmt: skip
    want = sorted(at(s) for slots in SLOTS[id_]["expected"]["slots_by_booker_date"].values() for s in slots)
    # There a question is about instants, here it is about whole dates (slots.md 12).
    found = [s for s in found if at(case["window"][0]) <= s <= at(case["window"][1])]
    ours = OURS[id_](want) if id_ in OURS else want
    assert found == ours
    assert (ours == want) is (id_ not in OURS)


def pending_holds(_want: list[datetime]) -> list[datetime]:
    """slots.md 5: a pending booking reserves, so 06:00 to 06:15 is taken. There it blocks nothing by default."""
    day = [at("2024-05-22T04:00:00Z") + timedelta(minutes=45 * n) for n in range(11)]
    return [
        s
        for s in day
        if not (s < at("2024-05-22T06:15:00Z") and at("2024-05-22T06:00:00Z") < s + timedelta(minutes=45))
    ]


def fixed_grid(starts: list[str], taken: list[tuple[str, str]], minutes: int) -> list[datetime]:
    busy = [(at(a), at(b)) for a, b in taken]
    return [s for s in map(at, starts) if not any(a < s + timedelta(minutes=minutes) and s < b for a, b in busy)]


def grid_stays(_want: list[datetime]) -> list[datetime]:
    """slots.md 3: busy time never moves the grid. There the starts begin anew after each busy time."""
    day = [f"2024-05-22T{4 + 45 * n // 60:02}:{45 * n % 60:02}:00Z" for n in range(11)]
    return fixed_grid(
        day,
        [("2024-05-22T04:00:00Z", "2024-05-22T04:15:00Z"), ("2024-05-22T05:30:00Z", "2024-05-22T05:45:00Z")],
        45,
    )


def window_grid(want: list[datetime]) -> list[datetime]:
    """slots.md 3: the grid begins with the window at 09:30, not with the next whole hour: half an hour earlier, one more a day."""
    days = sorted({(s + timedelta(hours=5, minutes=30)).date() for s in want})
    return [
        datetime(d.year, d.month, d.day, 4, tzinfo=UTC) + timedelta(hours=n) for d in days for n in range(8)
    ]  # fmt: skip


def every_two_hours(_want: list[datetime]) -> list[datetime]:
    """slots.md 3: the grid begins with the window at 09:30 (04:00 UTC), not with the next whole hour."""
    return [at("2024-05-22T04:00:00Z") + timedelta(hours=2 * n) for n in range(5)]


OURS: dict[str, Any] = {
    "e2e-01": pending_holds,
    "e2e-16": grid_stays,
    "e2e-04": every_two_hours,
    "e2e-19": window_grid,
    "e2e-22": window_grid,
    "e2e-25": window_grid,
}


def booking_window(period: dict[str, Any] | None) -> BookingWindow | None:
    if period is None:
        return None
    if period["kind"] == "next_days":
        return BookingWindow(rolling_days=period["days"])
    if period["kind"] == "range":
        kolkata = zone("Asia/Kolkata")
        days = [date_of(kolkata.local_day(minute_of(at(period[name])))) for name in ("start", "end")]
        return BookingWindow(start_date=days[0], end_date=days[1])
    # We have no window of the next N bookable days: the three days that it comes to are asked for as a range, in which the
    # full day offers nothing by itself.
    return BookingWindow(start_date=date(2024, 5, 31), end_date=date(2024, 6, 3))


def offered(
    kind: EventType, tables: dict[str, Schedule], now: datetime, where: str, first: date, last: date, *,
    bookings: Iterable[dict[str, Any]] = (), holds: Iterable[dict[str, Any]] = (), external: Iterable[dict[str, Any]] = (),
) -> list[datetime]:  # fmt: skip
    hosts = {id_: Host(id=id_, name="h", timezone="UTC", schedule_id=table.id, **MADE) for id_, table in tables.items()}
    plan = plan_of(World(kind, hosts, {t.id: t for t in tables.values()}))
    entries: dict[str, list[Reservation]] = {id_: [] for id_ in tables}
    busy: dict[str, list[External]] = {id_: [] for id_ in tables}
    for n, one in enumerate([*bookings, *holds]):
        low, high = minute(one["start"]), minute(one["end"])
        lapses = at(one["release_at"]).timestamp() if "release_at" in one else None
        event = f"evt_{one['event_id']}"
        entries[f"hst_{one['host']}"].append(Reservation(low, high, low, high, f"bkg_{n}", event, 1, lapses))
    for one in external:
        busy[f"hst_{one['host']}"].append(External(minute(one["start"]), minute(one["end"]), "cev_1"))
    facts = Facts(
        {id_: Reservations(rows) for id_, rows in entries.items()},
        {id_: ExternalBusy(rows) for id_, rows in busy.items()},
        tallies={
            id_: Tally([Counted(e.start, e.end, e.id, e.lapses) for e in rows if e.event_type_id == kind.id])
            for id_, rows in entries.items()
        },
    )
    ask = Ask(now=now, minutes=kind.duration_minutes)
    body = answer(plan, facts, ask, where, first, last)
    return [at(s["start_at"]).astimezone(UTC) for d in body["days"] for s in d["slots"]]


# --- team_ranges


def test_two_half_free_hosts_are_not_one_free_host() -> None:
    case = SLOTS["team-01"]
    frame = Frame.over(minute("2025-01-23T00:00:00Z"), minute("2025-01-24T00:00:00Z"))
    hosts = [filled(frame, intervals(h["free"])) for h in case["input"]["hosts"]]
    expected = intervals(case["expected"]["ranges"])
    assert sorted(s for h in hosts for s in spans(frame, h)) == expected
    # A start that half an hour follows must have it with one host: none has, though both together cover it.
    half_hour = [lasting(h, 30) for h in hosts]
    assert not any(h >> (minute("2025-01-23T11:00:00Z") - frame.base) & 1 for h in half_hour)
    assert all(lasting(hosts[0], 20) >> (minute(a) - frame.base) & 1 for a, _ in case["upstream_asserts"]["covers"])


def test_one_host_of_every_group() -> None:
    """We have no groups of hosts: each group is any host of its own, and all groups together are required."""
    case = SLOTS["team-04"]
    frame = Frame.over(minute("2025-01-23T00:00:00Z"), minute("2025-01-24T00:00:00Z"))
    together = frame.every
    for group in (None, "group1", "group2"):
        free = 0
        for host in case["input"]["hosts"]:
            if host.get("group") == group:
                free |= filled(frame, intervals(host["free"]))
        together &= free
    assert spans(frame, together) == intervals(case["expected"]["ranges"])


# --- settings


def test_limits_of_growing_periods_go_together() -> None:
    """There a day's limit must not be above a month's. Ours may be anything: each is enforced for itself."""
    case = SLOTS["limord-01"]
    limits = [Limit(count=n, per=per) for per, n in case["input"]["limits"].items()]
    assert [problem for limit in limits for problem in limit.problems()] == []
    assert case["expected"]["valid"]


def test_the_end_of_a_rolling_window() -> None:
    """There the window is the first N bookable days. Ours are calendar or business days, which do not depend on bookings."""
    case = SLOTS["rollend-01"]["input"]
    now = at(case["now_local"])
    zone_name = "Asia/Magadan"  # at +11:00
    kind = event_type(duration_minutes=30, booking_window=BookingWindow(rolling_days=case["days_needed"]))
    made = Schedule(id="sch_0", name="s", timezone=zone_name, **MADE)
    host = Host(id="hst_101", name="h", timezone="UTC", schedule_id="sch_0", **MADE)
    first, last = bookable_dates(plan_of(World(kind, {"hst_101": host}, {"sch_0": made})), now)
    assert (date_of(first), date_of(last)) == (date(2024, 5, 2), date(2024, 5, 5))
    end = zone(zone_name).spans(last, last)[-1][1]
    assert instant_of(end) == at("2024-05-06T00:00:00+11:00")


def test_every_case_is_asserted() -> None:
    kinds = {c["kind"] for c in SLOTS.values()}
    assert kinds == {
        "ranges_to_slots", "schedule_to_ranges", "subtract", "intersect", "team_ranges", "conflict", "schedule_to_slots",
        "limit_order", "rolling_end",
    }  # fmt: skip
    assert len(SLOTS) == 26
