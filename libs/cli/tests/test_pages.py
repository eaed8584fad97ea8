"""docs/settings.md is what the code says, and docs/operations.md names nothing that is not there."""

import re
from pathlib import Path
from typing import Final

import pytest

from kalends_cli.settings_page import page
from kalends_shared.jetstream import stream_name

ROOT: Final = Path(__file__).parents[3]
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCES: Final = "\n".join(
    file.read_text(encoding="utf-8")
    for package in ("libs", "services")
    for file in (ROOT / package).glob("*/src/**/*.py")
)
STREAMS: Final = {stream_name(context) for context in ("booking", "availability", "calendar")}
EVENTS: Final = r"`((?:relay|consumer|timers?|nats|task|worker|webhooks?)\.[a-z_]+)"


def test_the_page_of_settings_is_current() -> None:
    kept = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert kept == page(), "run `python -m kalends_cli.settings_page > docs/settings.md`"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(kalends_[a-z_]+)", OPERATIONS))))
def test_metrics_that_operators_are_told_of_exist(name: str) -> None:
    assert f'"{name}"' in SOURCES


@pytest.mark.parametrize("event", sorted(set(re.findall(EVENTS, OPERATIONS))))
def test_log_events_that_operators_are_told_of_exist(event: str) -> None:
    assert f'"{event}"' in SOURCES


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(KALENDS_[A-Z_]+)[`=]", OPERATIONS)) - STREAMS))
def test_settings_that_operators_are_told_of_exist(name: str) -> None:
    assert f"`{name}`" in page()
