"""The rules' sentences about what is taken, and by how many it may be, one by one, with answers worked out by hand."""

from datetime import timedelta

import pytest

from kalends_shared.contracts.availability import EventTypeHost, Limit

from .asking import at, booked, nine_to, schedule, slots, starts
from .oracle import Taken


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
