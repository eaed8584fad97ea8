"""The engine and the oracle answer alike."""

import ast
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from kalends_availability.domain.rules import Ask
from kalends_shared.testkit import scale

from . import oracle
from .facts import answer, facts_of, plan_of
from .oracle import Oracle, Question, World
from .worlds import questions

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture(params=["UTC", "America/St_Johns", "Pacific/Apia"])
def process_zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process's own zone, which must change nothing."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_the_oracle_shares_no_code_with_the_engine() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text())
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in (*froms, *names) if name and name.startswith("kalends")}
    assert ours == {"kalends_shared.contracts.availability"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


def engine(world: World, ask: Question) -> list[tuple[datetime, int]]:
    body = answer(plan_of(world), facts_of(world), ask_of(ask), ask.zone, ask.first, ask.last)
    found = []
    for day in body["days"]:
        for slot in day["slots"]:
            start, end = datetime.fromisoformat(slot["start_at"]), datetime.fromisoformat(slot["end_at"])
            assert slot["start_at"][:10] == day["date"]
            assert slot["start_at"] == oracle.written(start, ask.zone)
            assert slot["end_at"] == oracle.written(end, ask.zone)
            assert (end - start).total_seconds() == ask.minutes * 60
            found.append((start, slot["seats_left"]))
    assert [day["date"] for day in body["days"]] == sorted({day["date"] for day in body["days"]})
    return sorted(found)


def ask_of(ask: Question) -> Ask:
    return Ask(now=ask.now, minutes=ask.minutes, seats=ask.seats, host_id=ask.host_id, ignored=ask.ignored)


def agree(case: tuple[World, Question]) -> None:
    world, ask = case
    assert engine(world, ask) == Oracle(world, ask).offered()


@pytest.mark.timeout(3600)
@settings(
    max_examples=scale.count(reduced=80, full=6_700),
    deadline=None,
    suppress_health_check=[*SLOW, HealthCheck.function_scoped_fixture],
)
@given(case=questions())
def test_agree(process_zone: str, case: tuple[World, Question]) -> None:
    agree(case)


@pytest.mark.timeout(3600)
@settings(max_examples=scale.count(reduced=40, full=2_000), deadline=None, suppress_health_check=SLOW)
@given(case=questions(everything=True))
def test_agree_in_every_setting_at_once(case: tuple[World, Question]) -> None:
    agree(case)
