# ruff: noqa: DTZ001 - wall times have no zone
"""Names of zones as programs write them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from kalends_calendar_sync.domain import content, zones

OWN = ZoneInfo("Asia/Tokyo")


def zones_of(described: str = "") -> zones.Zones:
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\n{described}END:VCALENDAR\n"
    return zones.Zones(content.parse(text), OWN)


@pytest.mark.parametrize(
    ("tzid", "zone"),
    [
        ("Europe/Madrid", "Europe/Madrid"),
        ("europe/madrid", "Europe/Madrid"),
        ("Romance Standard Time", "Europe/Paris"),
        ("Pacific Standard Time", "America/Los_Angeles"),
        ("/freeassociation.sourceforge.net/Europe/Madrid", "Europe/Madrid"),
        ("/mozilla.org/20050126_1/America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("US/Eastern", "US/Eastern"),
        ("Nowhere/At_All", "Asia/Tokyo"),
        ("Customized Time Zone", "Asia/Tokyo"),
    ],
)
def test_named_zones(tzid: str, zone: str):
    assert zones_of().of(tzid) == ZoneInfo(zone)


def test_floating_time_is_the_calendars():
    assert zones_of().of(None) is OWN


@pytest.mark.parametrize(("tzid", "hours"), [("GMT+0100", 1), ("UTC-03:30", -3.5), ("+05:45", 5.75), ("GMT-5", -5)])
def test_fixed_offsets(tzid: str, hours: float):
    assert zones_of().of(tzid).utcoffset(datetime(2026, 4, 6)) == timedelta(hours=hours)


def test_utc():
    assert zones_of().of("Etc/UTC") is UTC


MADRID = """BEGIN:VTIMEZONE
TZID:Customized Time Zone
BEGIN:STANDARD
DTSTART:16010101T030000
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:16010101T020000
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3
END:DAYLIGHT
END:VTIMEZONE
"""


def test_a_described_zone_agrees_with_the_one_it_describes():
    described, real = zones_of(MADRID).of("Customized Time Zone"), ZoneInfo("Europe/Madrid")
    moment = datetime(2025, 1, 1)
    while moment < datetime(2028, 1, 1):
        assert described.utcoffset(moment) == real.utcoffset(moment.replace(tzinfo=real)), moment
        moment += timedelta(minutes=30)


def test_a_described_zone_names_its_place():
    described = MADRID.replace("TZID:Customized Time Zone", "TZID:Mine\nX-LIC-LOCATION:America/Lima")
    assert zones_of(described).of("Mine") == ZoneInfo("America/Lima")


@pytest.mark.parametrize("broken", ["RRULE:FREQ=NEVER", "TZOFFSETTO:+9999"])
def test_a_zone_described_wrongly_is_the_calendars(broken: str):
    described = f"BEGIN:VTIMEZONE\nTZID:Mine\nBEGIN:STANDARD\nDTSTART:20000101T000000\nTZOFFSETFROM:+0100\nTZOFFSETTO:+0100\n{broken}\nEND:STANDARD\nEND:VTIMEZONE\n"
    if broken.startswith("TZ"):
        described = described.replace("TZOFFSETTO:+0100\n", "")
    assert zones_of(described).of("Mine") is OWN
