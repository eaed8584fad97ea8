"""Random worlds for the oracle and the engine: settings, bookings, busy calendars and a question about them."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from hypothesis import strategies as st

from kalends_shared.contracts.availability import (
    Away,
    BookingWindow,
    EventType,
    EventTypeHost,
    Holidays,
    Host,
    Limit,
    Override,
    Resource,
    Schedule,
    Travel,
    WeeklyWindow,
    Window,
)

from .oracle import MINUTE, Oracle, Question, Taken, World

MADE = datetime(2020, 1, 1, tzinfo=UTC)
COMMON: dict[str, Any] = {"created_at": MADE, "updated_at": MADE, "version": 1}
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

ZONES = [
    "UTC", "Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu", "Pacific/Apia",
    "Africa/Casablanca", "Africa/Cairo", "America/St_Johns", "America/Havana", "Asia/Kolkata", "Pacific/Kiritimati",
    "Pacific/Pago_Pago", "Antarctica/Troll", "America/Nuuk", "Europe/Dublin", "Pacific/Chatham", "Asia/Beirut", "Africa/Juba",
]  # fmt: skip
# Dates on which some zone of the list changes its clocks, or skips the date, and a few on which nothing happens.
EVENTFUL = [
    date(2026, 3, 29), date(2026, 10, 25), date(2027, 3, 14), date(2027, 11, 7), date(2027, 4, 4), date(2026, 10, 4),
    date(2026, 4, 5), date(2026, 9, 6), date(2027, 2, 7), date(2026, 3, 22), date(2026, 4, 24), date(2026, 10, 30),
    date(2011, 12, 30), date(2010, 11, 7), date(2006, 4, 2), date(2021, 2, 1), date(2026, 1, 1), date(2025, 12, 25),
    date(2026, 7, 4), date(2028, 2, 29), date(2026, 6, 10),
]  # fmt: skip

zones = st.sampled_from(ZONES)


def rarely(draw: st.DrawFn, one_in: int) -> bool:
    return draw(st.integers(1, one_in)) == one_in


steps = st.sampled_from([1, 5, 15, 30, 60])


@st.composite
def clocks(draw: st.DrawFn) -> tuple[str, str]:
    step = draw(steps)
    start = draw(st.integers(0, 1439 // step)) * step
    end = draw(st.one_of(st.just(1440), st.integers(start // step + 1, 1440 // step).map(lambda n: n * step)))
    return f"{start // 60:02}:{start % 60:02}", f"{end // 60:02}:{end % 60:02}"


@st.composite
def schedules(draw: st.DrawFn, id_: str, around: date, *, open_: bool = False) -> Schedule:
    near = st.integers(-3, 3).map(lambda n: around + timedelta(days=n))
    weekly = []
    for _ in range(draw(st.integers(1, 3))):
        start, end = draw(clocks())
        days = draw(st.lists(st.sampled_from(DAYS), min_size=4, max_size=7, unique=True))
        weekly.append(WeeklyWindow(days, start, end))  # type: ignore[arg-type]
    if open_ or rarely(draw, 2) or rarely(draw, 2):
        weekly.append(WeeklyWindow(list(DAYS), "00:00", "24:00"))  # type: ignore[arg-type]
    overrides = [
        Override(day, [Window(*w) for w in draw(st.lists(clocks(), max_size=3))])
        for day in (draw(st.lists(near, max_size=2, unique=True)) if rarely(draw, 3) else [])
    ]
    away = []
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2]))):
        first = draw(near)
        if draw(st.booleans()):
            away.append(Away(start_date=first, end_date=first + timedelta(days=draw(st.integers(0, 1)))))
        else:
            begin = datetime.combine(first, time(), tzinfo=UTC) + timedelta(seconds=draw(st.integers(0, 86_400)))
            away.append(Away(start_at=begin, end_at=begin + timedelta(seconds=draw(st.integers(1, 40_000)))))
    travel = []
    if draw(st.sampled_from([False, False, False, True])):
        first = draw(near)
        travel.append(Travel(first, first + timedelta(days=draw(st.integers(0, 3))), draw(zones)))
    country = draw(st.sampled_from([None] * 5 + [Holidays("ES", "MD"), Holidays("US"), Holidays("JP")]))
    return Schedule(
        id=id_, name="s", timezone=draw(zones), weekly=weekly, overrides=overrides, away=away, travel=travel,
        holidays=country, **COMMON,
    )  # fmt: skip


@st.composite
def booking_windows(draw: st.DrawFn, around: date) -> BookingWindow | None:
    form = draw(st.sampled_from(["wide", "wide", "wide", "none", "days", "business", "range"]))
    if form == "days":
        return BookingWindow(rolling_days=draw(st.integers(2, 6)))
    if form == "business":
        return BookingWindow(rolling_business_days=draw(st.integers(0, 5)))
    if form == "range":
        first = around + timedelta(days=draw(st.integers(-2, 2)))
        return BookingWindow(start_date=first, end_date=first + timedelta(days=draw(st.integers(0, 3))))
    return None if form == "none" else BookingWindow(rolling_days=60)


limits = st.builds(
    lambda per, count, minutes: Limit(count=count, per=per) if minutes is None else Limit(minutes=minutes, per=per),
    st.sampled_from(["day", "week", "month", "year"]),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(10, 300)),
)


@st.composite
def questions(draw: st.DrawFn, *, everything: bool = False) -> tuple[World, Question]:
    """A world and a question. `everything` draws an event type that has every setting at once."""
    around = draw(st.sampled_from(EVENTFUL))
    many = draw(st.integers(1, 3)) if not everything else 5
    assignment = draw(st.sampled_from(["any", "round_robin", "collective"])) if many > 1 else "single"
    assignment = "collective" if everything else assignment
    spare = draw(schedules("sch_common", around, open_=everything))
    tables = {f"sch_{i}": draw(schedules(f"sch_{i}", around, open_=everything)) for i in range(many)} | {
        "sch_common": spare
    }
    hosts = {
        f"hst_{i}": Host(
            id=f"hst_{i}", name="h", timezone=draw(zones), active=not rarely(draw, 15 if not everything else 60),
            schedule_id=None if rarely(draw, 15 if not everything else 60) else f"sch_{i}", **COMMON,
        )
        for i in range(many)
    }  # fmt: skip
    minutes = draw(st.sampled_from([1, 10, 15, 20, 30, 30, 45, 60, 90, 240, 1440]))
    capacity = draw(st.sampled_from([1, 1, 2, 4])) if not everything else 3
    rooms = {"res_a": draw(st.integers(1, 2)), "res_b": 1} if everything or draw(st.booleans()) else {}
    required = 1
    if many > 1 and assignment in {"any", "round_robin"} and capacity == 1:
        required = draw(st.integers(1, many))
    maybe = st.sampled_from([None, None, None, None, "sch_common"])
    buffers = st.sampled_from([0] * 6 + [5, 15, 60, 1440])
    kind = EventType(
        id="evt_asked", title="t", slug="t", duration_minutes=minutes, durations=[minutes],
        hosts=[EventTypeHost(h) for h in hosts], assignment=assignment, required_hosts=required, capacity=capacity,
        slot_interval_minutes=draw(st.sampled_from([None, None, 5, 7, 15, 30, 60])),
        slot_offset_minutes=draw(st.sampled_from([0, 0, 0, 5, 10, 90])),
        buffer_before_minutes=draw(buffers), buffer_after_minutes=draw(buffers),
        minimum_notice_minutes=draw(st.sampled_from([0, 0, 0, 1, 60, 1500])),
        booking_window=draw(booking_windows(around)),
        limits=draw(st.lists(limits, max_size=2 if rarely(draw, 2) else int(everything), min_size=int(everything))),
        only_first_slot_of_day=rarely(draw, 6),
        schedule_id=draw(maybe), restriction_schedule_id=draw(maybe), resource_ids=list(rooms),
        on_stale_calendar=draw(st.sampled_from(["open", "closed"])), **COMMON,
    )  # fmt: skip
    resources = {id_: Resource(id=id_, name=id_, quantity=n, **COMMON) for id_, n in rooms.items()}
    first = around + timedelta(days=draw(st.integers(-1, 1)))
    now = datetime.combine(first, time(), tzinfo=UTC) + timedelta(
        days=draw(st.sampled_from([-4, -2, -1, -1, 0])), seconds=draw(st.sampled_from([0, 1, 3600, 45_000, 86_399]))
    )
    narrowed = draw(st.sampled_from([None, None, "hst_0"])) if assignment != "collective" and required == 1 else None
    ask = Question(
        now=now, zone=draw(zones), first=first, last=first + timedelta(days=draw(st.integers(0, 2))), minutes=minutes,
        seats=draw(st.sampled_from([1, 1, 1, 2])), host_id=narrowed,
        ignored=frozenset({"bkg_0"}) if draw(st.booleans()) else frozenset(),
    )  # fmt: skip
    stale = frozenset(h for h in hosts if rarely(draw, 20))
    world = World(kind, hosts, tables, resources, stale=stale)
    fill(draw, world, ask)
    return world, ask


def fill(draw: st.DrawFn, world: World, ask: Question) -> None:
    """Bookings as they could have been made (none conflicts with another), and busy calendars."""
    midnight = datetime.combine(ask.first, time(), tzinfo=UTC)
    grid = sorted(set().union(*Oracle(world, ask)._grids.values()))
    near = [s for s in grid if midnight - 300 * MINUTE <= s <= midnight + 1800 * MINUTE]
    # A few starts, so that bookings meet at them.
    own = draw(st.lists(st.sampled_from(near), min_size=1, max_size=3)) if near else []
    every = sorted(world.hosts)
    for i in range(draw(st.integers(0, 10))):
        if own and not rarely(draw, 3):
            start, length, kind = draw(st.sampled_from(own)), ask.minutes, "evt_asked"
        else:
            start = midnight + draw(st.integers(-1500, 4500)) * MINUTE
            length, kind = draw(st.sampled_from([15, 30, 60, 600])), draw(st.sampled_from(["evt_asked", "evt_other"]))
        buffers = st.sampled_from([0, 0, 0, 10, 60])
        names = every if world.event_type.assignment == "collective" else [draw(st.sampled_from(every))]
        if rarely(draw, 10):
            names = draw(st.lists(st.sampled_from(every), min_size=1, max_size=2, unique=True))
        one = Taken(
            f"bkg_{i}", kind, start, start + length * MINUTE, names, draw(buffers), draw(buffers), draw(st.sampled_from([1, 1, 2])),
            units=[(r, draw(st.integers(1, 2))) for r in world.resources],
            expires_at=draw(
                st.sampled_from([None] * 4 + [ask.now + timedelta(seconds=30), ask.now, ask.now - timedelta(1)])
            ),
        )  # fmt: skip
        place(world, one)
    for host in world.hosts:
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
            begin = midnight + timedelta(seconds=draw(st.integers(-90_000, 250_000)))
            span = timedelta(seconds=draw(st.sampled_from([1, 59, 60, 1800, 3599, 3601, 90_000])))
            world.external.setdefault(host, []).append((begin, begin + span))


def place(world: World, one: Taken) -> None:
    """Adds a booking unless it conflicts with one that is there; one that shares a slot takes that one's reservation."""
    for other in world.taken:
        same = (other.event_type_id, other.start, other.end) == (one.event_type_id, one.start, one.end)
        hosts = set(other.host_ids) & set(one.host_ids)
        meets = other.reserves[0] < one.reserves[1] and one.reserves[0] < other.reserves[1]
        if same and hosts:
            if set(other.host_ids) != set(one.host_ids) or one.event_type_id != "evt_asked":
                return
            one.before, one.after, one.units = other.before, other.after, other.units
        elif meets and (hosts or set(other.units) & set(one.units)):
            return
    world.taken.append(one)
