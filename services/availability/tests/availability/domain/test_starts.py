"""The rules' sentences about which starts there are, one by one, with answers worked out by hand."""

from datetime import date, timedelta

import pytest

from kalends_shared.contracts.availability import BookingWindow, EventTypeHost, Travel

from .asking import at, booked, nine_to, schedule, starts


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

    def test_an_end_after_midnight_has_the_offset_of_its_own_time(self) -> None:
        # Chicago's clocks change at 2:00, so that the next date begins with the offset of this one.
        table = schedule("America/Chicago", ("00:00", "24:00"))
        for day in ("2027-03-13", "2027-11-06"):
            assert starts(table, day, zone="America/Chicago", duration_minutes=300, slot_interval_minutes=60)

    def test_buffers_need_not_be_working_time(self) -> None:
        assert starts(nine_to("09:30"), buffer_before_minutes=60, buffer_after_minutes=60) == ["01T09:00"]


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
