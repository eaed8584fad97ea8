"""Recurrence rules (RFC 5545 section 3.3.10), expanded inside a window of wall time.

The expansion begins at the window, not at the first occurrence, and ends at its end, whatever the rule says: a rule
that never comes true (30 February) or comes true every second costs no more than the window is long.
"""

import calendar
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import IntEnum
from itertools import product
from typing import Final

from msgspec import Struct

from kalends_calendar_sync.domain.values import BadValueError, midnight, wall_time

MAX_OCCURRENCES: Final = 20_000
MAX_COUNTED: Final = 200_000
DAY: Final = timedelta(days=1)
WEEKDAYS: Final = {"MO": 0, "TU": 1, "WE": 2, "TH": 3, "FR": 4, "SA": 5, "SU": 6}
_SECONDS_A_DAY: Final = 86_400


class Freq(IntEnum):
    YEARLY = 0
    MONTHLY = 1
    WEEKLY = 2
    DAILY = 3
    HOURLY = 4
    MINUTELY = 5
    SECONDLY = 6


_UNIT: Final = {Freq.HOURLY: 3600, Freq.MINUTELY: 60, Freq.SECONDLY: 1}


class Rule(Struct, frozen=True):
    """A parsed RRULE. `by_day` are (n, weekday), n 0 where every such day is meant; Monday is 0.

    `until` is as written: (naive time, is it a date, is it UTC).
    """

    freq: Freq
    interval: int = 1
    count: int | None = None
    until: tuple[datetime, bool, bool] | None = None
    by_month: tuple[int, ...] = ()
    by_month_day: tuple[int, ...] = ()
    by_day: tuple[tuple[int, int], ...] = ()
    by_year_day: tuple[int, ...] = ()
    by_week_no: tuple[int, ...] = ()
    by_hour: tuple[int, ...] = ()
    by_minute: tuple[int, ...] = ()
    by_second: tuple[int, ...] = ()
    by_set_pos: tuple[int, ...] = ()
    week_start: int = 0


_LISTS: Final = {
    "BYMONTH": ("by_month", 1, 12, False),
    "BYMONTHDAY": ("by_month_day", 1, 31, True),
    "BYYEARDAY": ("by_year_day", 1, 366, True),
    "BYWEEKNO": ("by_week_no", 1, 53, True),
    "BYHOUR": ("by_hour", 0, 23, False),
    "BYMINUTE": ("by_minute", 0, 59, False),
    "BYSECOND": ("by_second", 0, 60, False),
    "BYSETPOS": ("by_set_pos", 1, 366, True),
}


def parse(text: str) -> Rule:
    """Reads the value of an RRULE.

    Raises:
        BadValueError: where it is none, or has a part that we do not know, since a rule half understood is another rule.
    """
    parts: dict[str, str] = {}
    for part in text.strip().strip(";").split(";"):
        key, _, value = part.partition("=")
        parts[key.strip().upper()] = value.strip().upper()
    fields: dict[str, object] = {}
    for key, value in parts.items():
        if key in _LISTS:
            name, low, high, signed = _LISTS[key]
            fields[name] = _numbers(key, value, low, high, signed)
        elif key == "FREQ":
            if value not in Freq.__members__:
                raise BadValueError(f"FREQ={value[:20]}")
            fields["freq"] = Freq[value]
        elif key in {"INTERVAL", "COUNT"}:
            # Some clients write COUNT=-1 for "no end".
            if key == "COUNT" and value.startswith("-"):
                continue
            fields[key.lower()] = max(1, _number(key, value, 0, 1_000_000))
        elif key == "UNTIL":
            fields["until"] = wall_time(value)
        elif key == "BYDAY":
            fields["by_day"] = tuple(_weekday(day) for day in value.split(",") if day)
        elif key == "WKST":
            fields["week_start"] = _weekday(value)[1]
        elif key == "RSCALE" and value == "GREGORIAN":
            continue
        elif not key.startswith("X-"):
            raise BadValueError(f"{key[:20]} is not known in a recurrence rule")
    if "freq" not in fields:
        raise BadValueError("a recurrence rule has no FREQ")
    rule = Rule(**fields)  # type: ignore[arg-type]
    if rule.by_set_pos and rule.freq in _UNIT:
        raise BadValueError("BYSETPOS below a day is not supported")
    return rule


def _number(key: str, value: str, low: int, high: int) -> int:
    try:
        made = int(value)
    except ValueError as error:
        raise BadValueError(f"{key}={value[:20]}") from error
    if not low <= made <= high:
        raise BadValueError(f"{key}={value[:20]}")
    return made


def _numbers(key: str, value: str, low: int, high: int, signed: bool) -> tuple[int, ...]:
    made = tuple(_number(key, part, -high if signed else low, high) for part in value.split(",") if part)
    if low and 0 in made:
        raise BadValueError(f"{key}={value[:20]}")
    return made


def _weekday(text: str) -> tuple[int, int]:
    day, number = text.strip()[-2:], text.strip()[:-2]
    if day not in WEEKDAYS:
        raise BadValueError(f"BYDAY={text[:20]}")
    return (_number("BYDAY", number, -53, 53) if number else 0), WEEKDAYS[day]


def occurrences(
    rule: Rule, start: datetime, last: datetime | None, after: datetime, before: datetime
) -> list[datetime]:
    """The wall times of the rule in [after, before) from `start` on, up to `last` (included) where there is one.

    Raises:
        BadValueError: where there are more than MAX_OCCURRENCES of them, or of those that must be counted first.
    """
    rule = _complete(rule, start)
    if last is not None:
        before = min(before, last + timedelta(seconds=1))
    counted = rule.count is not None
    begin = start if counted else max(start, after)
    out: list[datetime] = []
    seen = 0
    for found in _walk(rule, start, begin, before):
        if found < start:
            continue
        if found >= before:
            break
        seen += 1
        if rule.count is not None and seen > rule.count:
            break
        if found >= after:
            out.append(found)
        if len(out) > MAX_OCCURRENCES or seen > MAX_COUNTED:
            raise BadValueError("a recurrence rule has too many occurrences")
    return out


def _complete(rule: Rule, start: datetime) -> Rule:
    """Gives the rule what it takes from its first occurrence."""
    fields = {name: getattr(rule, name) for name in rule.__struct_fields__}
    if not (rule.by_week_no or rule.by_year_day or rule.by_month_day or rule.by_day):
        if rule.freq is Freq.YEARLY:
            fields["by_month"] = rule.by_month or (start.month,)
            fields["by_month_day"] = (start.day,)
        elif rule.freq is Freq.MONTHLY:
            fields["by_month_day"] = (start.day,)
        elif rule.freq is Freq.WEEKLY:
            fields["by_day"] = ((0, start.weekday()),)
    if rule.freq < Freq.HOURLY:
        fields["by_hour"] = rule.by_hour or (start.hour,)
    if rule.freq < Freq.MINUTELY:
        fields["by_minute"] = rule.by_minute or (start.minute,)
    if rule.freq < Freq.SECONDLY:
        fields["by_second"] = rule.by_second or (start.second,)
    return Rule(**fields)


def _walk(rule: Rule, start: datetime, begin: datetime, before: datetime) -> Iterator[datetime]:
    """The rule's times, ascending, from a little before `begin` on, without regard to COUNT."""
    if rule.freq in _UNIT:
        yield from _within_days(rule, start, begin, before)
        return
    times = sorted(
        {
            timedelta(hours=h, minutes=m, seconds=min(s, 59))
            for h, m, s in product(rule.by_hour, rule.by_minute, rule.by_second)
        }
    )
    for days in _periods(rule, start.date(), begin.date(), before.date()):
        found = [midnight(day) + time for day in days for time in times]
        if rule.by_set_pos:
            places = {p - 1 if p > 0 else len(found) + p for p in rule.by_set_pos}
            found = [time for i, time in enumerate(found) if i in places]
        yield from found


def _periods(rule: Rule, start: date, begin: date, before: date) -> Iterator[list[date]]:
    """The days of each year, month, week or day that the rule names, ascending."""
    step = rule.interval
    match rule.freq:
        case Freq.YEARLY:
            for year in range(start.year + _skip(begin.year - start.year, step), min(before.year, 9998) + 1, step):
                yield _year(rule, year)
        case Freq.MONTHLY:
            origin = start.year * 12 + start.month - 1
            skipped = _skip(begin.year * 12 + begin.month - 1 - origin, step)
            for month in range(origin + skipped, before.year * 12 + before.month, step):
                if not rule.by_month or month % 12 + 1 in rule.by_month:
                    yield [d for d in _month(rule, month // 12, month % 12 + 1) if _fits(rule, d, with_day=False)]
        case Freq.WEEKLY:
            first = start - DAY * ((start.weekday() - rule.week_start) % 7)
            day = first + DAY * (7 * _skip((begin - first).days // 7, step))
            offsets = sorted({(weekday - rule.week_start) % 7 for _, weekday in rule.by_day} or range(7))
            while day <= before:
                yield [d for o in offsets if _fits(rule, d := day + DAY * o, with_day=False)]
                day += DAY * (7 * step)
        case _:
            day = start + DAY * _skip((begin - start).days, step)
            while day <= before:
                if _fits(rule, day):
                    yield [day]
                day += DAY * step


def _skip(distance: int, step: int) -> int:
    """The steps' multiple at or below a distance, so that the phase of the rule is kept."""
    return max(0, distance // step * step)


def _month(rule: Rule, year: int, month: int) -> list[date]:
    """The days of a month by BYMONTHDAY and BYDAY, whose numbers count within the month."""
    first, length = calendar.monthrange(year, month)
    days = (
        {d if d > 0 else length + 1 + d for d in rule.by_month_day} if rule.by_month_day else set(range(1, length + 1))
    )
    if rule.by_day:
        named: set[int] = set()
        for number, weekday in rule.by_day:
            these = range(1 + (weekday - first) % 7, length + 1, 7)
            if number == 0:
                named.update(these)
            elif abs(number) <= len(these):
                named.add(these[number - 1 if number > 0 else number])
        days &= named
    return [date(year, month, d) for d in sorted(days) if 1 <= d <= length]


def _year(rule: Rule, year: int) -> list[date]:
    numbered = any(number for number, _ in rule.by_day)
    if rule.by_month or not numbered:
        days = [d for month in sorted(set(rule.by_month)) or range(1, 13) for d in _month(rule, year, month)]
        return [d for d in days if _fits(rule, d, with_day=False)]
    first, length = date(year, 1, 1), 366 if calendar.isleap(year) else 365
    named: set[int] = set()
    for number, weekday in rule.by_day:
        these = range((weekday - first.weekday()) % 7, length, 7)
        if number == 0:
            named.update(these)
        elif abs(number) <= len(these):
            named.add(these[number - 1 if number > 0 else number])
    return [d for n in sorted(named) if _fits(rule, d := first + DAY * n, with_day=False)]


def _fits(rule: Rule, day: date, with_day: bool = True) -> bool:
    """Holds a day to the parts that only ever narrow; BYDAY with `with_day`."""
    if rule.by_month and day.month not in rule.by_month:
        return False
    if with_day and rule.by_day and not any(day.weekday() == weekday for _, weekday in rule.by_day):
        return False
    if rule.by_month_day:
        length = calendar.monthrange(day.year, day.month)[1]
        if day.day not in rule.by_month_day and day.day - length - 1 not in rule.by_month_day:
            return False
    if rule.by_year_day:
        length = 366 if calendar.isleap(day.year) else 365
        number = day.timetuple().tm_yday
        if number not in rule.by_year_day and number - length - 1 not in rule.by_year_day:
            return False
    if rule.by_week_no:
        number, length = _week(day, rule.week_start)
        return number in rule.by_week_no or number - length - 1 in rule.by_week_no
    return True


def _week(day: date, week_start: int) -> tuple[int, int]:
    """The number of a day's week, and of the weeks in its year; week 1 is the first with four days in the year."""
    fourth = day - DAY * ((day.weekday() - week_start) % 7) + DAY * 3
    number = (fourth.timetuple().tm_yday - 1) // 7 + 1
    end = date(fourth.year, 12, 31)
    last = end - DAY * ((end.weekday() - week_start) % 7) + DAY * 3
    if last.year > fourth.year:
        last -= DAY * 7
    return number, (last.timetuple().tm_yday - 1) // 7 + 1


def _within_days(rule: Rule, start: datetime, begin: datetime, before: datetime) -> Iterator[datetime]:
    """The times of a rule that repeats within days: day by day, so that days which the rule leaves out cost nothing."""
    unit = _UNIT[rule.freq]
    origin = start.replace(minute=0 if unit == 3600 else start.minute, second=0 if unit > 1 else start.second)
    step = unit * rule.interval
    day = max(start, begin).date()
    while day <= before.date():
        if _fits(rule, day):
            dawn = midnight(day)
            passed = (dawn - origin) // timedelta(seconds=1)
            first = max(-passed, -passed % step)
            for second in range(first, _SECONDS_A_DAY, step):
                yield from _parts(rule, dawn + timedelta(seconds=second), unit)
        # A rule that takes a step of months still costs a look at each day, of which there are few.
        day += DAY


def _parts(rule: Rule, at: datetime, unit: int) -> Iterator[datetime]:
    """The times inside one hour, minute or second of the rule."""
    if rule.by_hour and at.hour not in rule.by_hour:
        return
    if unit < 3600 and rule.by_minute and at.minute not in rule.by_minute:
        return
    if unit == 1:
        if not rule.by_second or at.second in rule.by_second:
            yield at
        return
    minutes = sorted(rule.by_minute) if unit == 3600 else (at.minute,)
    for minute, second in product(minutes, sorted({min(s, 59) for s in rule.by_second})):
        yield at.replace(minute=minute, second=second)
