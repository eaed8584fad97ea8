"""What an operator does with events: watches them, has them published again, makes read models again out of them."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from kalends_availability.schema import SCHEMA as AVAILABILITY
from kalends_booking.schema import SCHEMA as BOOKING
from kalends_calendar_sync.schema import SCHEMA as CALENDAR_SYNC
from kalends_cli.__main__ import main
from kalends_cli.problem import Problem
from kalends_cli.replay import replay
from kalends_shared import db, nats
from kalends_shared.event_store import Position
from kalends_shared.jetstream import api, last_message, stream_name
from kalends_shared.migrations import Schema
from kalends_shared.publisher import wipe
from kalends_shared.relay import Relay
from kalends_shared.testkit.waiting import eventually_async

APPEND = """
SELECT tx, position FROM append_events($1, $2, $3, '{}', ARRAY[gen_random_uuid()::text], ARRAY[$4], '{1}',
    ARRAY['{"secret":1}'::json], ARRAY['{"secret":2}'::json], now(), '{"type":"key","id":"key_1"}'::json, 'req_1', NULL, NULL)
"""


@pytest.fixture(scope="session")
def schemas() -> Sequence[Schema]:
    return (AVAILABILITY, BOOKING, CALENDAR_SYNC)


@pytest.fixture
async def booking(database_url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    conn = await db.direct(database_url, "booking")
    yield conn
    await conn.close()


@pytest.fixture
def installed(database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The installation is named as a cluster's pods have it: the address with its password by a file."""
    for name in ("KALENDS_DATABASE_DIRECT_URL", "KALENDS_DATABASE_URL", "KALENDS_NATS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    secret = tmp_path / "database_url"
    secret.write_text(database_url + "\n", encoding="utf-8")
    monkeypatch.setenv("KALENDS_DATABASE_URL_FILE", str(secret))
    monkeypatch.setenv("KALENDS_NATS_URL", nats_url)
    monkeypatch.setenv("KALENDS_HOME", str(tmp_path / "none"))


async def command(*arguments: str) -> int:
    return await asyncio.to_thread(main, list(arguments))


async def append(
    conn: "asyncpg.Connection[Any]", stream: str, version: int, type_: str, tenant: str = "acc_1-live"
) -> Any:
    row = await conn.fetchrow(APPEND, tenant, stream, version, type_)
    assert row is not None
    return Position(*row)


@pytest.mark.usefixtures("installed")
async def test_tail_shows_what_was_and_nothing_that_an_event_carries(
    database_url: str, booking: "asyncpg.Connection[Any]", capsys: pytest.CaptureFixture[str]
) -> None:
    last = await append(booking, "bkg_1", 0, "booking.created")
    await append(booking, "bkg_2", 0, "booking.created", "acc_2-live")
    await append(booking, "bkg_1", 1, "booking.cancelled")
    calendar = await db.direct(database_url, "calendar_sync")
    await append(calendar, "cal_1", 0, "calendar.connected")
    await calendar.close()

    async def shown(*wanted: str) -> list[tuple[str, str, int]]:
        assert await command("tail", "--once", "--since", "60", *wanted) == 0
        out = capsys.readouterr().out
        assert "secret" not in out
        lines = [json.loads(line) for line in out.splitlines()]
        return [(line["source"], line["stream_id"], line["version"]) for line in lines]

    async def all_of_them() -> bool:  # another test's transaction may hide the last ones for a moment
        return len(await shown()) == 4

    await eventually_async(all_of_them)
    assert await shown() == [
        ("booking", "bkg_1", 1),
        ("booking", "bkg_2", 1),
        ("booking", "bkg_1", 2),
        ("calendar", "cal_1", 1),
    ]
    assert await shown("--tenant", "acc_1-live", "--source", "booking") == [
        ("booking", "bkg_1", 1),
        ("booking", "bkg_1", 2),
    ]
    assert await shown("--stream", "bkg_2") == [("booking", "bkg_2", 1)]
    assert await shown("--type", "booking.cancelled", "--type", "calendar.connected") == [
        ("booking", "bkg_1", 2),
        ("calendar", "cal_1", 1),
    ]
    await command("tail", "--once", "--since", "60", "--stream", "bkg_1", "--type", "booking.created")
    line = json.loads(capsys.readouterr().out)
    assert (line["at"], line["correlation_id"], line["actor"]) == (str(last), "req_1", {"type": "key", "id": "key_1"})
    assert await command("tail", "--once") == 0
    assert capsys.readouterr().out == "", "without --since it begins with what is to come"


@pytest.mark.usefixtures("installed")
async def test_tail_goes_on_with_what_happens(booking: "asyncpg.Connection[Any]") -> None:
    await append(booking, "bkg_1", 0, "booking.created")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kalends_cli", "tail", "--since", "60"), env=os.environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            assert json.loads(await process.stdout.readline())["version"] == 1
            await append(booking, "bkg_1", 1, "booking.cancelled")
            assert json.loads(await process.stdout.readline())["type"] == "booking.cancelled"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.usefixtures("installed")
async def test_replay_has_a_stream_published_again(
    database_url: str, nats_url: str, booking: "asyncpg.Connection[Any]"
) -> None:
    last = await append(booking, "bkg_1", 0, "booking.created")
    bus = await nats.connect(nats_url, "test")
    stop = asyncio.Event()
    relaying = asyncio.create_task(Relay("booking", database_url, "booking", bus).run(stop))

    async def stream() -> dict[str, Any]:
        return await api(bus, f"STREAM.INFO.{stream_name('booking')}", seconds=30)

    async def published() -> bool:
        found = await last_message(bus, "booking")
        return found is not None and f'"position":{last.position}'.encode() in found[1]

    await wipe(bus, "booking")  # of tests before this one
    await eventually_async(published)
    before = await stream()
    assert await command("replay", "booking") == 0
    after = await stream()
    assert after["created"] != before["created"]
    assert after["state"]["messages"] == before["state"]["messages"] == 1
    stop.set()
    await relaying

    with pytest.raises(Problem, match="once it runs"):
        await replay(database_url, nats_url, "booking", 2)
    await bus.close()


@pytest.mark.usefixtures("installed")
async def test_rebuild_tells_what_differs_and_puts_it_right(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    conn = await db.direct(database_url, "availability")
    await conn.execute(
        "INSERT INTO calendars (tenant_id, id, version, host_id, counts, seen_from)"
        " VALUES ('acc_1-live', 'cal_1', 1, 'hst_1', true, now())"
    )
    assert await command("rebuild", "--check") == 1
    assert "calendars: 1 differ" in capsys.readouterr().out
    assert await conn.fetchval("SELECT count(*) FROM calendars") == 1
    assert await command("rebuild") == 0
    assert "calendars: 1 put right" in capsys.readouterr().out
    assert await command("rebuild", "--check", "availability", "booking") == 0
    assert await conn.fetchval("SELECT count(*) FROM calendars") == 0
    assert await command("rebuild", "webhooks") == 1
    assert "no read models of webhooks" in capsys.readouterr().err
    await conn.close()
