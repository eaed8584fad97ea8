"""iCalendar text, with icalendar as the oracle."""

import icalendar
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalends_calendar_sync.domain import content
from kalends_calendar_sync.domain.content import Component, NotACalendarError, Property

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('\n;,\\:"'), max_size=200)


@given(summary=TEXT, name=TEXT.map(lambda t: t.replace('"', "").replace("\n", "")))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_again_by_both(summary: str, name: str):
    event = Component("VEVENT", [
        Property("UID", "a"),
        Property("DTSTART", "20260406T100000Z"),
        Property("SUMMARY", content.escape(summary)),
        Property("ATTENDEE", "mailto:a@example.com", {"CN": name}),
    ])  # fmt: skip
    text = content.render(Component("VCALENDAR", [Property("VERSION", "2.0")], [event]))
    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))
    ours = next(content.parse(text).within("VEVENT"))
    theirs = icalendar.Calendar.from_ical(text).walk("VEVENT")[0]
    assert ours.text("SUMMARY") == summary
    assert str(theirs["SUMMARY"]) == summary
    assert ours.first("ATTENDEE").params["CN"] == name


def test_control_characters_are_dropped():
    assert content.escape("a\x00b\x1fc\r\nd") == "abc\\nd"


def test_folds_params_and_line_ends():
    text = 'BEGIN:VCALENDAR\nBEGIN:vevent\nSUMMARY;X="a;b:c";Y=d,"e":Hel\n  lo\\, \\nall\nEND:VEVENT\nEND:VCALENDAR'
    for written in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        summary = next(content.parse(written).within("VEVENT")).first("SUMMARY")
        assert summary.text() == "Hel lo, \nall"
        assert summary.params == {"X": "a;b:c", "Y": 'd,"e"'}


@pytest.mark.parametrize(
    "text",
    [
        "", "<html>", "BEGIN:VEVENT\nEND:VEVENT", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID:1", "END:VCALENDAR",
        "BEGIN:VCALENDAR\n" * 50,
    ],
)  # fmt: skip
def test_half_a_calendar_is_none(text: str):
    with pytest.raises(NotACalendarError):
        content.parse(text)
