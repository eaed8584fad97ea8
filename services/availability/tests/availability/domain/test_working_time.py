"""The rules' sentences about when a host works, one by one, with answers worked out by hand."""

import zoneinfo
from datetime import date

from kalends_shared.contracts.availability import Away, Holidays, Limit, Override, Travel, Window

from .asking import at, booked, nine_to, schedule, starts


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
