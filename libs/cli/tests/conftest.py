"""A whole stack in a folder of its own: real servers, and services that are small fakes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalends_cli import probe, stack
from kalends_cli.home import Home
from kalends_cli.plan import Plan, Program

FAKE = str(Path(__file__).with_name("fake_service.py"))


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is well may take long to say so, where the machine has much to do."""
    monkeypatch.setattr(probe, "SECONDS", 60.0)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "kalends")
    yield made
    stack.end(made, 120)


@pytest.fixture
def plan(home: Home) -> Plan:
    """Two fakes behind the three servers, and a set-up that tells whether the database was there."""
    set_up = (
        "import asyncio, asyncpg, os; "
        "c = asyncio.run(asyncpg.connect(os.environ['KALENDS_DATABASE_URL'])); print('set up', flush=True)"
    )
    return Plan(
        given={},
        setup=[Program("migrate", [sys.executable, "-c", set_up])],
        services=[Program(name, [sys.executable, FAKE], {"KALENDS_PROCESS_NAME": name}) for name in ("one", "two")],
        env={"KALENDS_RUN_DIR": str(home.run), "FAKE_BROKEN": str(home.folder / "broken")},
    )


@pytest.fixture
def up(home: Home, plan: Plan) -> Home:
    stack.start(home, plan)
    stack.follow(home, 180)
    return home
