"""The doctor sees what could not be applied and who lags, and has it tried again."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from kalends_cli import doctor, restored
from kalends_cli.__main__ import main
from kalends_cli.plan import SERVICES
from kalends_cli.problem import Problem
from kalends_shared import db, nats
from kalends_shared.migrations import Schema
from kalends_shared.publisher import Publisher
from kalends_shared.relay import RETENTION

BURY = """
INSERT INTO dead_letters (source, tx, position, tenant_id, stream_id, event_id, type, status, error)
VALUES ('booking', 7, 1, 'acc_1-live', 'bkg_1', 'e1', 'booking.created', 'failed', E'Traceback\nValueError: [no]')
"""
APPEND = """
SELECT append_events('acc_1-live', 'bkg_1', 0, '{}', '{e1}', '{booking.created}', '{1}', ARRAY['{}'::json],
    ARRAY['{}'::json], now(), '{}'::json, NULL, NULL, NULL)
"""


@pytest.fixture(scope="session")
def schemas() -> Sequence[Schema]:
    """The gateway has neither events nor a consumer."""
    parts = {"gateway": ("idempotency",), "webhooks": ("consumer",)}
    return [Schema(name=name, parts=parts.get(name, ("event_store", "consumer"))) for name in SERVICES]


@pytest.fixture
async def webhooks(database_url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    conn = await db.direct(database_url, "webhooks")
    await conn.execute("INSERT INTO checkpoints (source) VALUES ('booking'), ('calendar')")
    yield conn
    await conn.close()


async def test_all_is_well(database_url: str, webhooks: object) -> None:
    findings = await doctor.examine(database_url)
    assert findings.well
    assert [(lag.service, lag.source, lag.events) for lag in findings.lags] == [
        ("webhooks", "booking", 0),
        ("webhooks", "calendar", 0),
    ]


async def test_who_lags_is_told_and_who_lags_long_is_not_well(database_url: str, webhooks: object) -> None:
    booking = await db.direct(database_url, "booking")
    await booking.execute(APPEND)
    await booking.close()
    findings = await doctor.examine(database_url)
    assert findings.lags[0].events == 1
    assert findings.well
    assert not doctor.Findings([doctor.Lag("webhooks", "booking", 1, 61.0)], {}).well


async def test_who_has_applied_what_a_restore_has_lost_is_not_well(
    database_url: str, webhooks: "asyncpg.Connection[Any]"
) -> None:
    booking = await db.direct(database_url, "booking")
    await booking.execute(APPEND)
    await webhooks.execute("UPDATE checkpoints SET (tx, position) = (SELECT 9e15::bigint, 1) WHERE source = 'booking'")
    lost = await doctor.examine(database_url)
    assert [(lag.source, lag.ahead) for lag in lost.lags] == [("booking", True), ("calendar", False)]
    assert not lost.well
    await webhooks.execute("UPDATE checkpoints SET (tx, position) = (0, 0)")
    at = await booking.fetchrow("SELECT tx, position FROM events")
    assert at is not None
    await webhooks.execute("UPDATE checkpoints SET (tx, position) = ($1, $2) WHERE source = 'booking'", *at)
    assert (await doctor.examine(database_url)).well
    await booking.close()


async def test_a_dead_letter_is_found_and_tried_again(database_url: str, webhooks: "asyncpg.Connection[Any]") -> None:
    await webhooks.execute(BURY)
    findings = await doctor.examine(database_url)
    assert not findings.well
    assert [letter.event_id for letter in findings.letters["webhooks"]] == ["e1"]

    assert await doctor.retry(database_url, service="booking") == 0
    assert await doctor.retry(database_url, stream_id="bkg_2") == 0
    assert await doctor.retry(database_url) == 1
    assert await webhooks.fetchval("SELECT retry_requested FROM dead_letters")


async def test_the_command_tells_it_by_its_exit_code(database_url: str, webhooks: "asyncpg.Connection[Any]") -> None:
    async def command(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kalends_cli", "doctor", *arguments),
            env=os.environ | {"KALENDS_DATABASE_URL": database_url, "KALENDS_HOME": "/nonexistent"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    code, said = await command()
    assert code == 0, said
    assert "All is well" in said
    await webhooks.execute(BURY)
    code, said = await command()
    assert code == 1
    assert "ValueError: [no]" in said
    code, said = await command("retry")
    assert code == 0
    assert "1 to be tried again" in said
    code, said = await command("discard", "e2", "--service", "webhooks")
    assert code == 1
    assert "no failed event e2" in said
    code, said = await command("discard", "e1", "--service", "webhooks")
    assert code == 0, said
    code, said = await command()
    assert code == 0, said


async def test_a_dead_letter_is_given_up_by_name_and_service(
    database_url: str, webhooks: "asyncpg.Connection[Any]"
) -> None:
    await webhooks.execute(BURY)
    await webhooks.execute(BURY.replace("7, 1", "7, 2").replace("'e1'", "'e2'").replace("'failed'", "'parked'"))
    for service, event_id in (("booking", "e1"), ("gateway", "e1"), ("webhooks", "e2"), ("webhooks", "e3")):
        assert not await doctor.discard(database_url, service, event_id)
    assert await doctor.discard(database_url, "webhooks", "e1")
    left = [tuple(row) for row in await webhooks.fetch("SELECT event_id, retry_requested FROM dead_letters")]
    assert left == [("e2", True)]


async def test_after_a_restore_new_events_follow_the_old_and_the_streams_are_gone(
    database_url: str, nats_url: str
) -> None:
    owner = await asyncpg.connect(database_url, server_settings={"search_path": "booking"})
    await owner.execute("UPDATE epoch SET tx_offset = 1000000000000")  # the server that was counted so high
    await owner.execute(APPEND)
    await owner.execute("UPDATE epoch SET tx_offset = 0")
    bus = await nats.connect(nats_url, "test")
    stream = Publisher(bus, "booking", RETENTION, 1)
    await stream.open()
    await stream.publish([("kalends.ev.booking.acc_1-live.booking.created", b"{}")])

    service = await db.direct(database_url, "booking")
    with pytest.raises(Problem, match="kalends-booking"):
        await restored.settle(database_url, nats_url)
    assert await stream.unchanged()
    await service.close()

    async def settled() -> list[str]:
        while True:  # the server notices a moment later that it has gone
            try:
                return await restored.settle(database_url, nats_url)
            except Problem:
                await asyncio.sleep(0.05)

    assert await asyncio.wait_for(settled(), 60) == ["availability", "booking", "calendar"]
    assert await owner.fetchval("SELECT current_tx() > max(tx) FROM events")
    await stream.open()
    assert await stream.last() is None
    await bus.close()
    await owner.close()


def test_without_a_database_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KALENDS_DATABASE_URL", "KALENDS_DATABASE_DIRECT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor", "--data-dir", str(tmp_path / "none")]) == 1
    assert "kalends up" in capsys.readouterr().err
