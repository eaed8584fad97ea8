# ruff: noqa: DTZ001 - wall times have no zone
"""Events and their occurrences: recurring-ical-events is the oracle, and each form that calendars write is a case."""

import random
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import icalendar
import pytest
import recurring_ical_events
from dateutil.rrule import rrulestr

from kalends_calendar_sync.domain import busy, content, series, zones
from kalends_calendar_sync.domain.values import BadValueError

WINDOW = busy.Window(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
MADRID = ZoneInfo("Europe/Madrid")


def calendar_of(*events: str, extra: str = "") -> str:
    body = "".join(f"BEGIN:VEVENT\nDTSTAMP:20260101T000000Z\n{event.strip()}\nEND:VEVENT\n" for event in events)
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:test\n{extra}{body}END:VCALENDAR\n".replace("\n", "\r\n")


def read(text: str, own: tzinfo = MADRID, owners: frozenset[str] = frozenset()) -> list[series.Series]:
    resource = content.parse(text)
    return series.read(resource, zones.Zones(resource, own), owners)


def times(
    text: str,
    own: tzinfo = MADRID,
    window: busy.Window = WINDOW,
    owners: frozenset[str] = frozenset(),
    tentative: bool = True,
) -> list[tuple[str, str]]:
    """Busy times as readable UTC pairs."""
    found = [pair for one in read(text, own, owners) for pair in busy.busy(one, window, tentative)]
    return [tuple(datetime.fromtimestamp(m * 60, UTC).strftime("%m-%dT%H:%M") for m in pair) for pair in sorted(found)]


def wall(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S")


def random_calendar(dice: random.Random) -> tuple[str, timedelta]:
    zone = dice.choice(["Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
    start = datetime(
        dice.choice([2024, 2026]), dice.randint(1, 4), dice.randint(1, 28), dice.randint(0, 23), dice.choice([0, 30])
    )
    length = timedelta(minutes=dice.choice([30, 45, 60, 120]))
    rule = dice.choice([
        "FREQ=DAILY", "FREQ=DAILY;INTERVAL=3", "FREQ=WEEKLY;BYDAY=MO,WE,FR", "FREQ=WEEKLY;INTERVAL=2", "FREQ=MONTHLY",
        "FREQ=MONTHLY;BYDAY=-1FR", "FREQ=MONTHLY;BYMONTHDAY=31", "FREQ=YEARLY", "FREQ=MONTHLY;BYDAY=2TU,4TU",
    ])  # fmt: skip
    rule += dice.choice([f";COUNT={dice.randint(1, 40)}", f";UNTIL=2026{dice.randint(4, 12):02}01T100000Z", "", "", ""])

    def at(name: str, moment: datetime) -> str:
        return f"{name}:{wall(moment)}Z" if zone == "UTC" else f"{name};TZID={zone}:{wall(moment)}"

    def utc(moment: datetime) -> str:
        return wall(moment.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)) + "Z"

    starts = sorted({start, *rrulestr(rule.replace("Z", ""), dtstart=start)[:60]})
    ends = at("DTEND", start + length) if dice.random() < 0.5 else f"DURATION:PT{length // timedelta(minutes=1)}M"
    lines = ["UID:a", "SEQUENCE:0", at("DTSTART", start), ends, f"RRULE:{rule}"]
    if dice.random() < 0.5:
        lines.append(at("EXDATE", dice.choice(starts)))
    if dice.random() < 0.3:
        lines.append(f"EXDATE;VALUE=DATE:{dice.choice(starts):%Y%m%d}")
    if dice.random() < 0.3:
        lines.append(f"EXDATE:{utc(dice.choice(starts))}")
    if dice.random() < 0.3:
        lines.append(at("RDATE", start + timedelta(days=17, hours=3)))
    events = ["\n".join(lines)]
    if dice.random() < 0.6:
        replaced = dice.choice(starts)
        moved = replaced + timedelta(hours=dice.choice([1, -2, 30]))
        name = "RECURRENCE-ID;RANGE=THISANDFUTURE" if dice.random() < 0.3 else "RECURRENCE-ID"
        replaces = at(name, replaced) if dice.random() < 0.6 else f"{name}:{utc(replaced)}"
        status = dice.choice(["STATUS:CONFIRMED", "STATUS:CANCELLED"])
        events.append(
            "\n".join(["UID:a", "SEQUENCE:1", replaces, at("DTSTART", moved), at("DTEND", moved + length), status])
        )
    return calendar_of(*events), length


@pytest.mark.parametrize("seed", range(200))
def test_occurrences_agree_with_recurring_ical_events(seed: int):
    text, length = random_calendar(random.Random(seed))
    expected = {
        event.start.astimezone(UTC)
        for event in recurring_ical_events.of(icalendar.Calendar.from_ical(text)).between(WINDOW.start, WINDOW.end)
        if str(event.get("STATUS")) != "CANCELLED"
    }
    found = [o for one in read(text) for o in busy.expand(one, WINDOW) if busy.is_busy(o.event)]
    assert {o.start for o in found} == expected
    assert {o.end - o.start for o in found} <= {length}


TIMED = "UID:a\nDTSTART;TZID=Europe/Madrid:20260406T100000\nDTEND;TZID=Europe/Madrid:20260406T110000\n"


@pytest.mark.parametrize(
    "more",
    [
        "TRANSP:TRANSPARENT",
        "STATUS:CANCELLED",
        "X-MICROSOFT-CDO-BUSYSTATUS:FREE",
        "X-MICROSOFT-CDO-BUSYSTATUS:WORKINGELSEWHERE",
        "ATTENDEE;PARTSTAT=DECLINED;CN=Ana:mailto:Ana@example.com",
    ],
)
def test_what_is_not_busy(more: str):
    assert times(calendar_of(TIMED + more), owners=frozenset({"ana@example.com"})) == []


@pytest.mark.parametrize(
    "more",
    [
        "TRANSP:OPAQUE",
        "STATUS:TENTATIVE",
        "STATUS:CONFIRMED",
        "X-MICROSOFT-CDO-BUSYSTATUS:OOF",
        "ATTENDEE;PARTSTAT=DECLINED:mailto:somebody@example.com",
        "ATTENDEE;PARTSTAT=ACCEPTED:mailto:ana@example.com",
    ],
)
def test_what_is_busy(more: str):
    assert times(calendar_of(TIMED + more), owners=frozenset({"ana@example.com"})) == [("04-06T08:00", "04-06T09:00")]


def test_tentative_is_free_where_the_host_says_so():
    assert times(calendar_of(TIMED + "STATUS:TENTATIVE"), tentative=False) == []


def test_zero_length_is_free():
    assert times(calendar_of("UID:a\nDTSTART:20260406T100000Z\nDTEND:20260406T100000Z")) == []
    assert times(calendar_of("UID:a\nDTSTART:20260406T100000Z")) == []


def test_seconds_are_widened_to_minutes():
    assert times(calendar_of("UID:a\nDTSTART:20260406T100030Z\nDTEND:20260406T103001Z")) == [
        ("04-06T10:00", "04-06T10:31")
    ]


def test_what_ends_in_the_year_9999_is_busy_until_the_last_minute_that_can_be_stored():
    (ever,) = read(calendar_of("UID:a\nDTSTART:20260406T100000Z\nDTEND:99991231T235959Z"))
    ((start, end),) = busy.busy(ever, WINDOW)
    assert (datetime.fromtimestamp(start * 60, UTC), end) == (datetime(2026, 4, 6, 10, tzinfo=UTC), 2**31 - 1)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("Europe/Madrid", ("04-05T22:00", "04-06T22:00")),
        ("Etc/GMT+12", ("04-06T12:00", "04-07T12:00")),
        ("Etc/GMT-14", ("04-05T10:00", "04-06T10:00")),
    ],
)
@pytest.mark.parametrize("end", ["", "\nDTEND;VALUE=DATE:20260407", "\nDURATION:P1D"])
def test_all_day_is_from_midnight_to_midnight_of_the_calendar(zone: str, expected: tuple[str, str], end: str):
    assert times(calendar_of(f"UID:a\nDTSTART;VALUE=DATE:20260406{end}"), ZoneInfo(zone)) == [expected]


def test_all_day_over_a_change_of_the_clock():
    text = calendar_of("UID:a\nDTSTART;VALUE=DATE:20260328\nDTEND;VALUE=DATE:20260330\nRRULE:FREQ=WEEKLY;COUNT=2")
    assert times(text) == [("03-27T23:00", "03-29T22:00"), ("04-03T22:00", "04-05T22:00")]


def test_all_day_exceptions_as_dates_and_as_utc_midnights():
    text = calendar_of(
        "UID:a\nDTSTART;VALUE=DATE:20260406\nRRULE:FREQ=DAILY;COUNT=4\nEXDATE;VALUE=DATE:20260407\nEXDATE:20260407T220000Z"
    )
    assert times(text) == [("04-05T22:00", "04-06T22:00"), ("04-08T22:00", "04-09T22:00")]


def test_a_time_in_a_gap_keeps_its_length():
    text = calendar_of(
        "UID:a\nDTSTART;TZID=Europe/Madrid:20260328T023000\nDTEND;TZID=Europe/Madrid:20260328T033000\nRRULE:FREQ=DAILY;COUNT=2"
    )
    assert times(text) == [("03-28T01:30", "03-28T02:30"), ("03-29T01:30", "03-29T02:30")]
    single = "UID:a\nDTSTART;TZID=Europe/Madrid:20260329T023000\nDTEND;TZID=Europe/Madrid:20260329T031500"
    assert times(calendar_of(single)) == [("03-29T01:30", "03-29T02:15")]


def test_an_ambiguous_time_is_the_first_one():
    text = calendar_of("UID:a\nDTSTART;TZID=Europe/Madrid:20261025T023000\nDTEND;TZID=Europe/Madrid:20261025T024500")
    assert times(text) == [("10-25T00:30", "10-25T00:45")]


def test_an_event_over_the_night_of_a_change_ends_as_written():
    text = calendar_of("UID:a\nDTSTART;TZID=Europe/Madrid:20261024T220000\nDTEND;TZID=Europe/Madrid:20261025T060000")
    assert times(text) == [("10-24T20:00", "10-25T05:00")]


def test_rdates_with_periods():
    text = calendar_of(
        "UID:a\nDTSTART:20260406T100000Z\nDTEND:20260406T110000Z\n"
        "RDATE;VALUE=PERIOD:20260407T100000Z/PT3H,20260408T100000Z/20260408T103000Z\nRDATE:20260409T100000Z"
    )
    assert times(text) == [
        ("04-06T10:00", "04-06T11:00"),
        ("04-07T10:00", "04-07T13:00"),
        ("04-08T10:00", "04-08T10:30"),
        ("04-09T10:00", "04-09T11:00"),
    ]


WEEKLY = TIMED + "RRULE:FREQ=WEEKLY;COUNT=3\n"


def test_a_cancelled_occurrence_is_free():
    override = (
        "UID:a\nRECURRENCE-ID:20260413T080000Z\nDTSTART:20260413T080000Z\nDTEND:20260413T090000Z\nSTATUS:CANCELLED"
    )
    assert times(calendar_of(WEEKLY, override)) == [("04-06T08:00", "04-06T09:00"), ("04-20T08:00", "04-20T09:00")]


def test_this_and_later_ones_cancelled_end_the_series():
    override = (
        "UID:a\nRECURRENCE-ID;RANGE=THISANDFUTURE:20260413T080000Z\n"
        "DTSTART:20260413T080000Z\nDTEND:20260413T090000Z\nSTATUS:CANCELLED"
    )
    assert times(calendar_of(WEEKLY, override)) == [("04-06T08:00", "04-06T09:00")]


def test_of_two_versions_the_later_counts():
    older = TIMED + "SEQUENCE:1"
    newer = "UID:a\nSEQUENCE:2\nDTSTART:20260406T150000Z\nDTEND:20260406T160000Z"
    assert times(calendar_of(newer, older)) == [("04-06T15:00", "04-06T16:00")]


def test_occurrences_without_their_series():
    text = calendar_of("UID:a\nRECURRENCE-ID:20260413T080000Z\nDTSTART:20260413T100000Z\nDTEND:20260413T110000Z")
    assert times(text) == [("04-13T10:00", "04-13T11:00")]


def test_an_infinite_series_is_expanded_as_far_as_the_window():
    text = calendar_of("UID:a\nDTSTART:20200101T100000Z\nDTEND:20200101T110000Z\nRRULE:FREQ=DAILY")
    assert len(times(text)) == (WINDOW.end - WINDOW.start).days


def test_an_occurrence_that_began_before_the_window_counts():
    window = busy.Window(datetime(2026, 4, 7, tzinfo=UTC), datetime(2026, 4, 9, tzinfo=UTC))
    text = calendar_of("UID:a\nDTSTART:20260401T100000Z\nDURATION:P20D")
    assert times(text, window=window) == [("04-01T10:00", "04-21T10:00")]


@pytest.mark.parametrize(
    "bad",
    [
        "UID:a",
        "DTSTART:20260406T100000Z",
        "UID:a\nDTSTART:tomorrow",
        "UID:a\nDTSTART:20261306T100000Z",
        "UID:a\nDTSTART:20260406T100000Z\nRRULE:FREQ=SOMETIMES",
        "UID:a\nDTSTART:20260406T100000Z\nDURATION:long",
    ],
)
def test_what_cannot_be_understood_is_told(bad: str):
    with pytest.raises(BadValueError):
        read(calendar_of(bad))


def test_odd_but_unused_properties_do_no_harm():
    odd = "ATTACH;FMTTYPE=x:::\nGEO:somewhere\nCATEGORIES\nX-A;B:;\nCREATED:never\nSEQUENCE:one"
    assert times(calendar_of(TIMED + odd)) == [("04-06T08:00", "04-06T09:00")]
