"""The starts of a series: an RRULE (RFC 5545 3.3.10) over the wall time of a zone."""

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rrulestr

from kalends_booking.domain.refusals import refused
from kalends_shared.contracts.errors import KalendsError, invalid

MOST: Final = 52
# No booking window reaches further than 730 days, and a rule that never meets a date must end.
_HORIZON: Final = timedelta(days=732)
_FREQUENCIES: Final = frozenset({"DAILY", "WEEKLY", "MONTHLY", "YEARLY"})
_UNTIL: Final = re.compile(r"\d{8}(T\d{6}Z?)?")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}")
# How far these lists count, forwards or backwards: dateutil takes what lies beyond, and 0, for no restriction at all.
_REACH: Final = {"BYMONTH": 12, "BYMONTHDAY": 31, "BYYEARDAY": 366, "BYWEEKNO": 53, "BYSETPOS": 366}
_PLACE: Final = re.compile(r"[+-]?[0-9]{1,3}")


def starts(rule: str, first: datetime, zone: str) -> list[datetime]:
    """The starts, `first` among them, as instants; each at the wall time of the first, by the offset rule of 3.3.5.

    Raises:
        KalendsError: 422 at `#/recurrence/rrule` where it is no rule, does not end, has more than 52 starts, or the first
            start is none of them; `slot_not_offered` where starts lie past every booking window.
    """
    tz = ZoneInfo(zone)
    local = first.astimezone(tz).replace(tzinfo=None)
    parts = _parts(rule)
    count, until = parts.pop("COUNT", None), parts.pop("UNTIL", None)
    if (count is None) == (until is None):
        raise _wrong("must end, by one of COUNT and UNTIL")
    most = int(count) if count is not None else MOST + 1
    if count is not None and most > MOST:
        raise _wrong(f"has more than {MOST} starts")
    horizon = local + _HORIZON
    found = _rule(parts, local).replace(until=horizon if until is None else min(horizon, _local(until, tz)))
    made: list[datetime] = list(islice(found, most))
    if not made or made[0] != local:
        raise _wrong("does not have start_at as its first start")
    if len(made) > MOST:
        raise _wrong(f"has more than {MOST} starts")
    if count is not None and len(made) < most:
        raise refused("window", "The series goes on past every booking window.", "slot_not_offered")
    return [at.replace(tzinfo=tz).astimezone(UTC) for at in made]


def _parts(rule: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in rule.strip().upper().removeprefix("RRULE:").split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value or name in parts:
            raise _wrong(f"has a part that is none: {part}")
        parts[name] = value
    if parts.get("FREQ") not in _FREQUENCIES:
        raise _wrong(f"must have FREQ as one of {', '.join(sorted(_FREQUENCIES))}")
    for name in ("COUNT", "INTERVAL"):
        if name in parts and not _NUMBER.fullmatch(parts[name]):
            raise _wrong(f"has a {name} that is no number from 1")
    for name in _REACH.keys() & parts.keys():
        if not all(_PLACE.fullmatch(n) and 1 <= abs(int(n)) <= _REACH[name] for n in parts[name].split(",")):
            raise _wrong(f"has a {name} that counts further than {_REACH[name]}, or from 0")
    if parts["FREQ"] in {"DAILY", "WEEKLY"} and re.search(r"\d", parts.get("BYDAY", "")):
        raise _wrong("has a numbered BYDAY, which goes with MONTHLY and YEARLY")
    if "UNTIL" in parts and not _UNTIL.fullmatch(parts["UNTIL"]):
        raise _wrong("has an UNTIL that is no date")
    return parts


def _rule(parts: dict[str, str], local: datetime) -> rrule:
    try:
        made = rrulestr(";".join(f"{name}={value}" for name, value in parts.items()), dtstart=local)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _wrong("cannot be read") from error
    assert isinstance(made, rrule)
    return made


def _local(until: str, tz: ZoneInfo) -> datetime:
    """UNTIL as wall time of the zone; a date means all of it."""
    try:
        if len(until) == 8:
            return datetime.strptime(until + "T235959", "%Y%m%dT%H%M%S")  # noqa: DTZ007 - wall time has no zone
        at = datetime.strptime(until.rstrip("Z"), "%Y%m%dT%H%M%S")  # noqa: DTZ007
    except ValueError as error:
        raise _wrong("has an UNTIL that is no date") from error
    return at.replace(tzinfo=UTC).astimezone(tz).replace(tzinfo=None) if until.endswith("Z") else at


def _wrong(detail: str) -> KalendsError:
    return invalid("#/recurrence/rrule", "invalid", detail)
