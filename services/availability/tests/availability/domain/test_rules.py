"""The rules' sentences one by one, with answers worked out by hand. The oracle must give the same, so it is held to them too."""

import zoneinfo
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from kalends_availability.domain.rules import Ask
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

from .facts import answer, facts_of, plan_of
from .oracle import Oracle, Question, Taken, World

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


def test_zones_are_those_of_the_pinned_package() -> None:
    assert zoneinfo.TZPATH == ()


class TestWorkingWindows:
    def test_an_event_types_schedule_stands_for_hours_overrides_and_travel_but_not_for_away_and_holidays(self) -> None:
        own = schedule(
            "UTC", ("00:00", "24:00"), overrides=[Override(date(2026, 6, 1), [])],
            away=[Away(start_at=at("2026-06-01T07:00"), end_at=at("2026-06-01T07:30"))],
        )  # fmt: skip
        common = nine_to(
            "11:00", "Europe/Madrid", id="sch_common", holidays=Holidays("ES"),
            away=[Away(start_date=date(2026, 6, 1), end_date=date(2026, 6, 1))],
        )  # fmt: skip
        # 09:00 in Madrid is 07:00 UTC: the host's own away time is gone, the common schedule's own is not.
        found = starts(own, others=[common], schedule_id="sch_common")
        assert found == ["01T07:30", "01T08:00", "01T08:30"]

    def test_a_host_without_a_schedule_has_no_working_time_of_its_own(self) -> None:
        assert starts({"hst_a": None}) == []
        common = nine_to("10:00", id="sch_common")
        assert starts({"hst_a": None}, others=[common], schedule_id="sch_common") == ["01T09:00", "01T09:30"]

    def test_its_zone_is_then_the_hosts(self) -> None:
        # 23:00 of the 31st of May in New York: the limit's day is not that of the 1st of June.
        common = schedule("UTC", ("03:00", "03:30"), ("05:00", "05:30"), id="sch_common")
        full = {
            "limits": [Limit(count=1, per="day")], "schedule_id": "sch_common", "others": [common],
            "taken": [booked("2026-06-01T06:00")],
        }  # fmt: skip
        assert starts({"hst_a": None}, people={"hst_a": {"timezone": "America/New_York"}}, **full) == ["01T03:00"]
        assert starts({"hst_a": None}, **full) == []

    def test_an_override_stands_for_the_date_and_an_empty_one_closes_it(self) -> None:
        days = [Override(date(2026, 6, 1), [Window("12:00", "12:30")]), Override(date(2026, 6, 2), [])]
        assert starts(nine_to("09:30", overrides=days), last="2026-06-03") == ["01T12:00", "03T09:00"]

    def test_24_00_ends_a_day_and_23_59_is_23_59(self) -> None:
        assert starts(schedule("UTC", ("23:00", "24:00"))) == ["01T23:00", "01T23:30"]
        assert starts(schedule("UTC", ("23:00", "23:59"))) == ["01T23:00"]

    def test_an_ambiguous_time_is_the_first_one(self) -> None:
        # New York, 7 November 2027: 01:30 is 05:30 UTC, an hour later it is 01:30 again.
        table = schedule("America/New_York", ("01:30", "03:00"))
        assert starts(table, "2027-11-07", duration_minutes=60) == ["07T05:30", "07T06:30"]
        table = schedule("America/New_York", ("00:30", "01:30"))
        assert starts(table, "2027-11-07", duration_minutes=60) == ["07T04:30"]

    def test_a_time_in_a_gap_goes_by_the_offset_before_it(self) -> None:
        # 14 March 2027: 02:30 does not exist; by the offset of -05:00 it is 07:30 UTC, which is 03:30.
        table = schedule("America/New_York", ("02:30", "04:30"))
        assert starts(table, "2027-03-14") == ["14T07:30", "14T08:00"]

    def test_a_window_that_the_gap_turns_around_is_dropped(self) -> None:
        table = schedule("America/New_York", ("02:30", "03:15"), ("10:00", "10:30"))
        assert starts(table, "2027-03-14") == ["14T14:00"]

    def test_half_an_hour_is_a_gap_too(self) -> None:
        # Lord Howe, 4 April 2027: from +11:00 back to +10:30 at 02:00, so 01:30 to 02:00 comes twice.
        table = schedule("Australia/Lord_Howe", ("01:00", "02:30"))
        assert starts(table, "2027-04-04", zone="Australia/Lord_Howe") == ["03T14:00", "03T14:30", "03T15:00", "03T15:30"]  # fmt: skip

    def test_a_date_that_the_zone_skips_has_no_window(self) -> None:
        # Apia went from the 29th to the 31st of December 2011: 24:00 of the one is 00:00 of the other.
        table = schedule("Pacific/Apia", ("23:00", "24:00"))
        found = starts(table, "2011-12-29", "2011-12-31", zone="Pacific/Apia")
        assert found == ["30T09:00", "30T09:30", "31T09:00", "31T09:30"]
        early = schedule("Pacific/Apia", ("00:00", "00:30"), ("23:30", "24:00"))
        found = starts(early, "2011-12-29", "2011-12-31", zone="Pacific/Apia", duration_minutes=60)
        assert found == ["30T09:30", "31T09:30"]  # the first of them from 23:30 of the 29th to 00:30 of the 31st

    def test_windows_that_touch_or_overlap_are_one(self) -> None:
        table = schedule("UTC", ("09:00", "10:20"), ("10:20", "11:00"), ("10:50", "11:30"))
        assert starts(table) == ["01T09:00", "01T09:30", "01T10:00", "01T10:30", "01T11:00"]

    def test_as_instants(self) -> None:
        # 14 March 2027 in New York: 02:00 is 03:00, so the windows touch and have one grid.
        table = schedule("America/New_York", ("01:00", "02:00"), ("03:00", "04:00"))
        assert starts(table, "2027-03-14", duration_minutes=45) == ["14T06:00", "14T06:45"]
        assert starts(table, "2027-03-15", duration_minutes=45) == ["15T05:00", "15T07:00"]

    def test_those_of_two_dates_are_two(self) -> None:
        table = schedule("UTC", ("00:00", "24:00"))
        assert starts(table, "2026-06-01", "2026-06-02", duration_minutes=700) == [
            "01T00:00", "01T11:40", "01T23:20", "02T00:00", "02T11:40", "02T23:20",
        ]  # fmt: skip

    def test_travel_gives_its_dates_another_zone(self) -> None:
        table = nine_to("09:30", travel=[Travel(date(2026, 6, 2), date(2026, 6, 3), "Asia/Kathmandu")])
        assert starts(table, last="2026-06-04") == ["01T09:00", "02T03:15", "03T03:15", "04T09:00"]


class TestTakenAway:
    def test_away_dates_are_those_of_the_hosts_own_zone_whatever_travel_says(self) -> None:
        table = schedule(
            "America/New_York", ("00:00", "24:00"),
            away=[Away(start_date=date(2026, 6, 1), end_date=date(2026, 6, 1))],
            travel=[Travel(date(2026, 6, 1), date(2026, 6, 2), "Asia/Kathmandu")],
        )  # fmt: skip
        # The 1st of New York lasts from 04:00 to 04:00 UTC. That of Kathmandu, where the host is, began at 18:15.
        found = starts(table, "2026-06-01", "2026-06-02", duration_minutes=60)
        assert [s for s in found if s < "02T06:00"] == [
            "01T00:00", "01T00:15", "01T01:00", "01T01:15", "01T02:00", "01T02:15", "01T03:00", "02T04:15", "02T05:15",
        ]  # fmt: skip

    def test_a_holiday_yields_to_an_override_in_the_schedule_in_force(self) -> None:
        holiday = Holidays("US")  # the 3rd of July 2026, as the 4th is a Saturday
        assert starts(nine_to("09:30", holidays=holiday), "2026-07-02", "2026-07-05") == ["02T09:00", "05T09:00"]
        open_ = [Override(date(2026, 7, 3), [Window("10:00", "10:30")])]
        assert starts(nine_to("09:30", holidays=holiday, overrides=open_), "2026-07-03") == ["03T10:00"]
        # An override in the host's own schedule is nothing to an event type that has its own.
        common = nine_to("09:30", id="sch_common")
        own = nine_to("09:30", holidays=holiday, overrides=open_)
        assert starts(own, "2026-07-03", others=[common], schedule_id="sch_common") == []
        common = nine_to("09:30", id="sch_common", overrides=open_)
        own = nine_to("09:30", holidays=holiday)
        assert starts(own, "2026-07-03", others=[common], schedule_id="sch_common") == ["03T10:00"]

    def test_away_beats_both(self) -> None:
        table = nine_to(
            "09:30", holidays=Holidays("US"), overrides=[Override(date(2026, 7, 3), [Window("10:00", "10:30")])],
            away=[Away(start_date=date(2026, 7, 3), end_date=date(2026, 7, 3))],
        )  # fmt: skip
        assert starts(table, "2026-07-03") == []

    def test_a_restriction_leaves_what_is_inside_its_own_windows(self) -> None:
        narrow = schedule(
            "Europe/Madrid", ("12:15", "13:30"), id="sch_narrow", holidays=Holidays("US"),
            away=[Away(start_date=date(2026, 6, 1), end_date=date(2026, 6, 1))],
        )  # fmt: skip
        assert starts(nine_to("12:00"), others=[narrow], restriction_schedule_id="sch_narrow") == ["01T10:30", "01T11:00"]  # fmt: skip

    def test_taking_away_never_moves_the_grid(self) -> None:
        table = nine_to("11:00", away=[Away(start_at=at("2026-06-01T09:10"), end_at=at("2026-06-01T09:40"))])
        assert starts(table) == ["01T10:00", "01T10:30"]


class TestGrid:
    def test_starts_are_the_windows_start_the_offset_and_whole_intervals(self) -> None:
        grid = {"slot_interval_minutes": 25, "slot_offset_minutes": 10, "duration_minutes": 15}
        assert starts(nine_to("10:00"), **grid) == ["01T09:10", "01T09:35"]
        # The start lies below the window's end, though the slot ends in the next window.
        two = schedule("UTC", ("09:00", "10:00"), ("22:00", "24:00"), ("00:00", "01:00"))
        found = starts(two, slot_interval_minutes=50, slot_offset_minutes=70, duration_minutes=60)
        assert found == ["01T23:10"]

    def test_it_begins_anew_with_every_window_and_date(self) -> None:
        table = schedule("UTC", ("09:05", "10:05"), ("13:20", "13:50"))
        assert starts(table, last="2026-06-02") == [
            "01T09:05", "01T09:35", "01T13:20", "02T09:05", "02T09:35", "02T13:20",
        ]  # fmt: skip

    def test_minutes_are_elapsed_ones(self) -> None:
        table = schedule("America/New_York", ("00:00", "05:00"))
        assert starts(table, "2027-03-14", duration_minutes=60) == ["14T05:00", "14T06:00", "14T07:00", "14T08:00"]

    def test_it_does_not_depend_on_who_looks_or_from_when(self) -> None:
        table = schedule("UTC", ("20:00", "24:00"), ("00:00", "04:00"))
        whole = starts(table, "2026-06-01", "2026-06-02", duration_minutes=50)
        parts = [s for d in ("2026-06-01", "2026-06-02") for s in starts(table, d, duration_minutes=50)]
        assert whole == parts
        kathmandu = starts(table, "2026-06-02", duration_minutes=50, zone="Asia/Kathmandu")
        assert set(kathmandu) == {s for s in whole if "01T18:15" <= s < "02T18:15"}

    def test_the_same_start_from_two_windows_is_one_slot(self) -> None:
        # The 2nd is spent in Kathmandu, where it begins 5:45 hours before the 1st has ended in UTC.
        table = schedule("UTC", ("00:00", "24:00"), travel=[Travel(date(2026, 6, 2), date(2026, 6, 2), "Asia/Kathmandu")])  # fmt: skip
        found = starts(table, "2026-06-01", duration_minutes=15)
        assert len(found) == len(set(found)) == 96


class TestFit:
    def test_a_slot_may_run_over_midnight(self) -> None:
        table = schedule("UTC", ("23:00", "24:00"), ("00:00", "00:30"))
        assert starts(table, duration_minutes=60, slot_interval_minutes=30) == ["01T23:00", "01T23:30"]

    def test_buffers_need_not_be_working_time(self) -> None:
        assert starts(nine_to("09:30"), buffer_before_minutes=60, buffer_after_minutes=60) == ["01T09:00"]


class TestBusy:
    def test_both_sides_buffers_add_up(self) -> None:
        # Reserved by the booking: 09:50 to 10:45. By a slot: 10 minutes before it and 5 after.
        one = booked("2026-06-01T10:00", before=10, after=15)
        found = starts(nine_to("12:00"), taken=[one], buffer_before_minutes=10, buffer_after_minutes=5, slot_interval_minutes=5)  # fmt: skip
        assert [s for s in found if "01T09:10" <= s <= "01T11:00"] == ["01T09:10", "01T09:15", "01T10:55", "01T11:00"]

    def test_external_time_has_no_buffers_and_is_widened_to_whole_minutes(self) -> None:
        busy = {"hst_a": [(at("2026-06-01T10:00") + timedelta(seconds=1), at("2026-06-01T10:29") + timedelta(seconds=1))]}  # fmt: skip
        found = starts(nine_to("12:00"), external=busy, buffer_before_minutes=10, slot_interval_minutes=5)
        assert [s for s in found if "01T09:25" <= s <= "01T10:45"] == ["01T09:25", "01T09:30", "01T10:40", "01T10:45"]

    def test_a_hold_reserves_until_the_moment_it_ends(self) -> None:
        hold = booked("2026-06-01T09:00", expires_at=at("2026-06-01T08:00"))
        second = timedelta(seconds=1)
        assert starts(nine_to("09:30"), taken=[hold], now=at("2026-06-01T08:00") - second) == []
        assert starts(nine_to("09:30"), taken=[hold], now=at("2026-06-01T08:00")) == ["01T09:00"]

    def test_what_moves_is_no_obstacle_to_itself(self) -> None:
        one = booked("2026-06-01T09:00")
        assert starts(nine_to("09:30"), taken=[one], ignored=frozenset({"bkg_1"})) == ["01T09:00"]


class TestCapacity:
    def test_the_same_event_type_host_and_time_share_a_slot(self) -> None:
        two = [booked("2026-06-01T09:00", seats=2), booked("2026-06-01T09:00", id_="bkg_2")]
        assert slots(nine_to("10:00"), capacity=4, taken=two) == {"01T09:00": 1, "01T09:30": 4}
        assert slots(nine_to("10:00"), capacity=4, taken=two, seats=2) == {"01T09:30": 4}
        assert slots(nine_to("10:00"), capacity=3, taken=two) == {"01T09:30": 3}

    @pytest.mark.parametrize(
        "other",
        [booked("2026-06-01T09:15"), booked("2026-06-01T09:00", 45), booked("2026-06-01T09:00", 45, kind="evt_other")],
        ids=["another start", "another end", "another event type"],
    )
    def test_any_other_overlap_is_a_conflict(self, other: Taken) -> None:
        assert slots(nine_to("10:30"), capacity=4, taken=[other]) == {"01T10:00": 4}

    def test_seats_are_added_over_hosts(self) -> None:
        both = {"hst_a": nine_to("09:30"), "hst_b": nine_to("09:30")}
        one = [booked("2026-06-01T09:00", seats=2)]
        assert slots(both, capacity=3, taken=one) == {"01T09:00": 4}
        # One host must have them all.
        assert slots(both, capacity=3, taken=one, seats=3) == {"01T09:00": 4}
        assert slots(both, capacity=3, taken=[*one, booked("2026-06-01T09:00", 30, "hst_b", id_="bkg_2")], seats=3) == {}  # fmt: skip

    def test_together_they_have_the_least(self) -> None:
        both = {"hst_a": nine_to("09:30"), "hst_b": nine_to("09:30")}
        one = [booked("2026-06-01T09:00", seats=2)]
        assert slots(both, assignment="collective", capacity=3, taken=one) == {"01T09:00": 1}

    def test_without_capacity_a_slot_has_one_seat(self) -> None:
        assert slots({"hst_a": nine_to("09:30"), "hst_b": nine_to("09:30")}) == {"01T09:00": 1}
        assert slots(nine_to("09:30"), seats=2) == {}

    def test_another_buffer_than_the_slot_was_begun_with_is_looked_at(self) -> None:
        begun = [booked("2026-06-01T09:00"), booked("2026-06-01T09:40", kind="evt_other", id_="bkg_2")]
        assert slots(nine_to("09:30"), capacity=2, taken=begun, buffer_after_minutes=10) == {"01T09:00": 1}
        assert slots(nine_to("09:30"), capacity=2, taken=begun, buffer_after_minutes=11) == {}


class TestNoticeAndWindow:
    def test_now_is_not_rounded(self) -> None:
        nine = at("2026-06-01T09:00")
        hour = {"minimum_notice_minutes": 60}
        assert starts(nine_to("09:30"), now=nine - timedelta(hours=1), **hour) == ["01T09:00"]
        assert starts(nine_to("09:30"), now=nine - timedelta(hours=1) + timedelta(microseconds=1), **hour) == []

    def test_nothing_in_the_past(self) -> None:
        assert starts(nine_to("10:00"), now=at("2026-06-01T09:30")) == ["01T09:30"]
        assert starts(nine_to("10:00"), now=at("2026-06-01T09:31")) == []

    @pytest.mark.parametrize(
        ("window", "last"),
        [
            (BookingWindow(rolling_days=0), "05T09:00"),
            (BookingWindow(rolling_days=4), "09T09:00"),
            (BookingWindow(rolling_business_days=0), "05T09:00"),
            (BookingWindow(rolling_business_days=1), "08T09:00"),
            (BookingWindow(rolling_business_days=6), "15T09:00"),
            (BookingWindow(start_date=date(2026, 6, 7), end_date=date(2026, 6, 8)), "08T09:00"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_the_window_s_last_date_is_included(self, window: BookingWindow, last: str) -> None:
        friday = at("2026-06-05T08:00")
        found = starts(nine_to("09:30"), "2026-06-01", "2026-06-20", now=friday, booking_window=window)
        assert (found[0], found[-1]) == ("07T09:00" if window.start_date else "05T09:00", last)

    def test_no_window_is_730_days(self) -> None:
        found = starts(nine_to("09:30"), "2028-05-30", "2028-06-05", now=at("2026-06-01T08:00"), booking_window=None)
        assert found == ["30T09:00", "31T09:00"]

    def test_dates_are_those_of_the_event_types_zone_whatever_travel_says(self) -> None:
        # It is the 2nd in Kathmandu, still the 1st in New York.
        now = at("2026-06-01T20:00")
        hosts = {
            "hst_a": schedule("America/New_York", ("00:00", "24:00"), travel=[Travel(date(2026, 6, 1), date(2026, 6, 9), "Asia/Kathmandu")]),
            "hst_b": schedule("Asia/Kathmandu", ("00:00", "24:00")),
        }  # fmt: skip
        today = {"booking_window": BookingWindow(rolling_days=0), "duration_minutes": 15, "now": now}
        assert starts(hosts, "2026-06-01", "2026-06-03", **today)[-1] == "02T03:45"
        # First means the order in `hosts`.
        order = [EventTypeHost("hst_b"), EventTypeHost("hst_a")]
        assert starts(hosts, "2026-06-01", "2026-06-03", hosts=order, **today)[-1] == "02T18:00"
        common = schedule("UTC", ("00:00", "24:00"), id="sch_common")
        found = starts(hosts, "2026-06-01", "2026-06-03", others=[common], schedule_id="sch_common", **today)
        assert found[-1] == "01T23:45"


class TestLimits:
    def test_a_full_period_of_the_hosts_zone_offers_nothing(self) -> None:
        # 15:00 UTC is 00:00 of the next day in Tokyo.
        table = schedule("Asia/Tokyo", ("23:30", "24:00"), ("00:00", "00:30"))
        day = {"limits": [Limit(count=1, per="day")], "taken": [booked("2026-06-01T15:00")]}
        assert starts(table, "2026-06-01", "2026-06-02", **day) == ["01T14:30", "02T15:00"]

    def test_weeks_begin_on_monday(self) -> None:
        one = [booked("2026-06-10T12:00")]
        found = starts(nine_to("09:30"), "2026-06-06", "2026-06-16", taken=one, limits=[Limit(count=1, per="week")])
        assert found == ["06T09:00", "07T09:00", "15T09:00", "16T09:00"]

    def test_a_month(self) -> None:
        one = [booked("2026-06-10T12:00")]
        found = starts(nine_to("09:30"), "2026-05-30", "2026-07-02", taken=one, limits=[Limit(count=1, per="month")])
        assert found == ["30T09:00", "31T09:00", "01T09:00", "02T09:00"]

    def test_a_year(self) -> None:
        one = [booked("2026-02-10T12:00")]
        found = starts(nine_to("09:30"), "2026-12-30", "2027-01-02", taken=one, limits=[Limit(count=1, per="year")])
        assert found == ["01T09:00", "02T09:00"]

    def test_the_new_one_must_still_fit_into_the_minutes(self) -> None:
        one = [booked("2026-06-01T12:00", 60)]
        assert starts(nine_to("09:30"), taken=one, limits=[Limit(minutes=90, per="day")]) == ["01T09:00"]
        assert starts(nine_to("09:30"), taken=one, limits=[Limit(minutes=89, per="day")]) == []
        assert starts(nine_to("09:30"), limits=[Limit(minutes=29, per="day")]) == []

    def test_only_bookings_of_this_event_type_count(self) -> None:
        one = [booked("2026-06-01T12:00", kind="evt_other")]
        assert starts(nine_to("09:30"), taken=one, limits=[Limit(count=1, per="day")]) == ["01T09:00"]

    def test_a_group_slot_counts_once_and_joining_it_is_never_limited(self) -> None:
        both = [booked("2026-06-01T09:00"), booked("2026-06-01T09:00", id_="bkg_2")]
        two = slots(nine_to("10:00"), capacity=3, taken=both, limits=[Limit(count=2, per="day")])
        assert two == {"01T09:00": 1, "01T09:30": 3}
        assert slots(nine_to("10:00"), capacity=3, taken=both, limits=[Limit(count=1, per="day")]) == {"01T09:00": 1}

    def test_it_is_each_hosts_own(self) -> None:
        both = {"hst_a": nine_to("09:30"), "hst_b": nine_to("09:30")}
        one = [booked("2026-06-01T12:00")]
        day = [Limit(count=1, per="day")]
        assert starts(both, taken=one, limits=day) == ["01T09:00"]
        assert starts(both, taken=one, limits=day, host_id="hst_a") == []
        assert starts(both, taken=one, limits=day, assignment="collective") == []


class TestOnlyFirst:
    def test_the_earliest_start_that_all_other_rules_allow(self) -> None:
        one = [booked("2026-06-01T09:00")]
        assert starts(nine_to("11:00"), only_first_slot_of_day=True) == ["01T09:00"]
        assert starts(nine_to("11:00"), only_first_slot_of_day=True, taken=one) == ["01T09:30"]
        assert starts(nine_to("11:00"), only_first_slot_of_day=True, now=at("2026-06-01T09:31")) == ["01T10:00"]
        rooms = {"rooms": {"res_a": 1}, "taken": [booked("2026-06-01T09:00", 30, "hst_z", units=[("res_a", 1)])]}
        assert starts(nine_to("11:00"), only_first_slot_of_day=True, **rooms) == ["01T09:30"]

    def test_it_is_found_over_the_whole_date_of_the_event_types_zone(self) -> None:
        table = schedule("UTC", ("02:00", "03:00"), ("20:00", "21:00"))
        # The 1st of June in Los Angeles begins at 07:00 UTC: the first start of that date was before.
        found = starts(table, "2026-06-01", zone="America/Los_Angeles", only_first_slot_of_day=True)
        assert found == ["02T02:00"]

    def test_after_a_host_was_chosen(self) -> None:
        hosts = {"hst_a": nine_to("11:00"), "hst_b": schedule("UTC", ("10:00", "11:00"))}
        assert starts(hosts, only_first_slot_of_day=True) == ["01T09:00"]
        assert starts(hosts, only_first_slot_of_day=True, host_id="hst_b") == ["01T10:00"]


class TestHosts:
    BOTH = {"hst_a": schedule("UTC", ("09:00", "11:00")), "hst_b": schedule("UTC", ("09:20", "10:20"))}  # noqa: RUF012

    def test_inactive_ones_drop_out(self) -> None:
        gone = {"hst_a": {"active": False}}
        assert starts(self.BOTH, people=gone) == ["01T09:20", "01T09:50"]
        assert starts(self.BOTH, people=gone, required_hosts=2) == []
        assert starts(self.BOTH, people={"hst_b": {"active": False}}, assignment="collective") == []

    def test_one_of_several_serves_a_start_on_any_ones_grid(self) -> None:
        busy = [booked("2026-06-01T09:00", 120, "hst_b", kind="evt_other")]
        # 09:20 and 09:50 are on b's grid, and a, who is free, serves them.
        assert starts(self.BOTH, taken=busy) == [
            "01T09:00", "01T09:20", "01T09:30", "01T09:50", "01T10:00", "01T10:30",
        ]  # fmt: skip
        # Of a host who was chosen there is no other grid.
        assert starts(self.BOTH, taken=busy, host_id="hst_a") == ["01T09:00", "01T09:30", "01T10:00", "01T10:30"]

    @pytest.mark.parametrize("assignment", ["any", "round_robin"])
    def test_some_of_several(self, assignment: str) -> None:
        found = starts(self.BOTH, assignment=assignment, required_hosts=2)
        assert found == ["01T09:20", "01T09:30", "01T09:50"]

    def test_all_of_them_go_by_the_first_ones_grid(self) -> None:
        assert starts(self.BOTH, assignment="collective") == ["01T09:30"]
        order = [EventTypeHost("hst_b"), EventTypeHost("hst_a")]
        assert starts(self.BOTH, assignment="collective", hosts=order) == ["01T09:20", "01T09:50"]


class TestResources:
    def test_a_unit_is_needed_for_all_that_the_slot_reserves(self) -> None:
        room = {"rooms": {"res_a": 1}, "taken": [booked("2026-06-01T10:00", 30, "hst_z", units=[("res_a", 1)])]}
        found = starts(nine_to("12:00"), buffer_before_minutes=15, buffer_after_minutes=15, **room)
        assert found == ["01T09:00", "01T11:00", "01T11:30"]

    def test_and_it_must_be_the_same_one(self) -> None:
        # Each of two units is free for half of the hour.
        halves = [
            booked("2026-06-01T09:00", 30, "hst_y", units=[("res_a", 1)]),
            booked("2026-06-01T09:30", 30, "hst_z", id_="bkg_2", units=[("res_a", 2)]),
        ]
        assert starts(nine_to("10:00"), rooms={"res_a": 2}, taken=halves, duration_minutes=60) == []
        assert starts(nine_to("10:00"), rooms={"res_a": 2}, taken=halves) == ["01T09:00", "01T09:30"]
        # A unit that is no longer there is not free.
        assert starts(nine_to("10:00"), rooms={"res_a": 1}, taken=halves) == ["01T09:30"]

    def test_every_resource_is_needed(self) -> None:
        one = [booked("2026-06-01T09:00", 30, "hst_z", units=[("res_b", 1)])]
        assert starts(nine_to("10:00"), rooms={"res_a": 1, "res_b": 1}, taken=one) == ["01T09:30"]

    def test_a_joined_slot_uses_the_units_that_it_has(self) -> None:
        one = [booked("2026-06-01T09:00", units=[("res_a", 1)])]
        assert slots(nine_to("09:30"), rooms={"res_a": 1}, taken=one, capacity=3) == {"01T09:00": 2}


class TestAnswer:
    def test_a_slot_belongs_to_the_date_of_its_start_in_the_zone_asked_for(self) -> None:
        table = schedule("UTC", ("18:00", "19:00"))
        # 18:15 UTC is midnight in Kathmandu.
        assert starts(table, "2026-06-01", zone="Asia/Kathmandu", slot_interval_minutes=15) == [
            "31T18:15", "31T18:30", "01T18:00",
        ]  # fmt: skip
        assert starts(table, "2026-06-02", zone="Asia/Kathmandu", slot_interval_minutes=15) == [
            "01T18:15", "01T18:30", "02T18:00",
        ]  # fmt: skip

    def test_a_date_that_the_zone_skips_is_listed_too(self) -> None:
        assert starts(schedule("UTC", ("09:00", "10:00")), "2011-12-30", zone="Pacific/Apia") == []
