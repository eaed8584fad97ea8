# ruff: noqa: DTZ001 - wall times have no zone
"""Recurrence rules against dateutil, and what dateutil cannot bear."""

import calendar
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from kalends_calendar_sync.domain import rules
from kalends_calendar_sync.domain.values import BadValueError

AFTER = datetime(2026, 3, 1)
DAYS = list(rules.WEEKDAYS)


def listed(name: str, values: Sequence[Any], size: int = 2):
    return st.lists(st.sampled_from(values), min_size=1, max_size=size, unique=True).map(
        lambda some: f"{name}=" + ",".join(map(str, some))
    )


@st.composite
def texts(draw: Any):
    freq = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY"]))
    months = freq in {"YEARLY", "MONTHLY"}
    # Numbered days and plain ones together narrow each other in dateutil, where the RFC joins them.
    numbers = ["1", "2", "-1", "5", "-2"] if months and draw(st.booleans()) else [""]
    days = [number + day for day in DAYS for number in numbers]
    optional = [
        st.integers(2, 13).map(lambda n: f"INTERVAL={n}"),
        st.one_of(st.integers(1, 60).map(lambda n: f"COUNT={n}"), st.just("UNTIL=20261001T000000")),
        listed("BYMONTH", range(1, 13)),
        listed("BYMONTHDAY", [1, 2, 13, 28, 29, 30, 31, -1, -2, -31]) if freq != "WEEKLY" else st.just(""),
        listed("BYDAY", days),
        st.just("BYYEARDAY=1,100,-1,366") if freq == "YEARLY" else st.just(""),
        st.just("BYHOUR=9,17"),
        st.just("BYMINUTE=0,30"),
        st.sampled_from(["BYSETPOS=1", "BYSETPOS=-1", "BYSETPOS=1,-1"]) if months else st.just(""),
        st.sampled_from(["WKST=SU", "WKST=MO", "WKST=TH"]),
    ]
    parts = [f"FREQ={freq}"] + [draw(part) for part in optional if draw(st.integers(0, 2)) == 0]
    return ";".join(filter(None, parts))


@given(
    text=texts(),
    start=st.datetimes(datetime(2019, 1, 1), datetime(2026, 6, 1)).map(lambda d: d.replace(microsecond=0)),
    days=st.integers(1, 400),
)
@settings(max_examples=300, deadline=None, phases=[Phase.generate])
def test_rules_agree_with_dateutil(text: str, start: datetime, days: int):
    if "HOURLY" in text:
        # 2026 has no 29 February.
        start = start.replace(year=2026, day=min(start.day, 28))
    before = AFTER + timedelta(days=days)
    try:
        oracle = rrulestr(text, dtstart=start)
    except ValueError:
        assume(False)
    if oracle._count is None:
        oracle = oracle.replace(until=min(oracle._until or before, before))
    expected = [time for time in takewhile(lambda time: time < before, oracle) if time >= AFTER]
    rule = rules.parse(text)
    assert rules.occurrences(rule, start, rule.until and rule.until[0], AFTER, before) == expected


@pytest.mark.parametrize("number", [1, 20, 53, -1])
def test_weeks_of_the_year_are_iso_weeks(number: int):
    rule = rules.parse(f"FREQ=YEARLY;BYWEEKNO={number};BYDAY=TH")
    found = rules.occurrences(rule, datetime(2020, 1, 2), None, datetime(2020, 1, 1), datetime(2030, 1, 1))
    weeks = {(day.isocalendar().year, day.isocalendar().week) for day in found}
    last = {year: datetime(year, 12, 28).isocalendar().week for year in range(2020, 2030)}
    assert weeks == {(y, last[y] if number < 0 else number) for y in last if number <= last[y]}


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=YEARLY;BYMONTHDAY=31;BYMONTH=4",
    ],
)
def test_a_rule_that_never_comes_true_has_no_occurrence(text: str):
    assert rules.occurrences(rules.parse(text), AFTER, None, AFTER, AFTER + timedelta(days=730)) == []


def test_a_rule_without_end_is_refused_where_it_floods():
    with pytest.raises(BadValueError, match="too many"):
        rules.occurrences(rules.parse("FREQ=SECONDLY"), AFTER, None, AFTER, AFTER + timedelta(days=730))
    with pytest.raises(BadValueError, match="too many"):
        rules.occurrences(rules.parse("FREQ=SECONDLY;COUNT=1000000"), datetime(1990, 1, 1), None, AFTER, AFTER)


def test_an_old_rule_costs_no_more_than_its_window():
    found = rules.occurrences(
        rules.parse("FREQ=DAILY;INTERVAL=3"), datetime(1901, 1, 1, 9), None, AFTER, AFTER + timedelta(days=9)
    )
    assert len(found) == 3
    assert all((day - datetime(1901, 1, 1, 9)).days % 3 == 0 for day in found)


@pytest.mark.parametrize(
    "text",
    ["", "FREQ=FORTNIGHTLY", "INTERVAL=2", "FREQ=DAILY;BYDAY=XX", "FREQ=DAILY;BYMONTH=13", "FREQ=DAILY;SKIP=OMIT"],
)
def test_what_is_no_rule_is_told(text: str):
    with pytest.raises(BadValueError):
        rules.parse(text)


def test_an_end_written_as_minus_one_is_none():
    assert rules.parse("FREQ=DAILY;COUNT=-1").count is None


def test_every_weekday_of_a_month():
    found = rules.occurrences(
        rules.parse("FREQ=MONTHLY;BYDAY=5MO"), datetime(2026, 1, 1), None, datetime(2026, 1, 2), datetime(2027, 1, 1)
    )
    assert [day.month for day in found] == [
        m for m in range(1, 13) if sum(week[0] != 0 for week in calendar.monthcalendar(2026, m)) == 5
    ]
