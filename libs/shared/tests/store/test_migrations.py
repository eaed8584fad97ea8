import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from kalends_shared import migrations
from kalends_shared.db import Database, role_of
from kalends_shared.migrations import ChangedMigration, PendingMigrations, Schema
from kalends_shared.testkit.infra import Databases

from .helpers import SCHEMA


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package whose migrations a test writes."""
    folder = tmp_path / "kalends_tried" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    sys.modules.pop("kalends_tried", None)


TRIED = Schema(name="tried", parts=("event_store",), package="kalends_tried")


async def test_a_second_run_applies_nothing(pg_url: str) -> None:
    first = await migrations.migrate(pg_url, [SCHEMA])
    assert f"{SCHEMA.name}: event_store/0001_events.sql" in first
    assert await migrations.migrate(pg_url, [SCHEMA]) == []


async def test_runs_at_once_in_one_database_and_in_several(databases: Databases) -> None:
    urls = [await databases.create() for _ in range(3)]
    async with asyncio.timeout(120):
        applied = await asyncio.gather(*(migrations.migrate(url, [SCHEMA]) for url in urls * 3))
    assert sum(map(bool, applied)) == len(urls)


async def test_pending_migrations_are_refused_and_newer_schemas_accepted(pg_url: str, package: Path) -> None:
    (package / "0001_first.sql").write_text("CREATE TABLE things (id text PRIMARY KEY);")
    await migrations.migrate(pg_url, [TRIED])
    db = await Database.connect(pg_url, "tried")
    async with db.pool.acquire() as conn:
        await migrations.check(conn, TRIED)
        (package / "0002_second.sql").write_text("ALTER TABLE things ADD COLUMN name text;")
        with pytest.raises(PendingMigrations, match="0002_second"):
            await migrations.check(conn, TRIED)
        await migrations.migrate(pg_url, [TRIED])
        (package / "0002_second.sql").unlink()
        await migrations.check(conn, TRIED)
    await db.close()


async def test_a_schema_that_was_never_migrated_is_pending(pg_url: str) -> None:
    await migrations.migrate(pg_url, [SCHEMA])
    conn = await asyncpg.connect(pg_url)
    with pytest.raises(PendingMigrations):
        await migrations.check(conn, SCHEMA)
    await conn.close()


async def test_an_applied_migration_that_changed_is_refused(pg_url: str, package: Path) -> None:
    (package / "0001_first.sql").write_text("CREATE TABLE things (id text PRIMARY KEY);")
    await migrations.migrate(pg_url, [TRIED])
    (package / "0001_first.sql").write_text("CREATE TABLE things (id bigint PRIMARY KEY);")
    with pytest.raises(ChangedMigration, match="0001_first"):
        await migrations.migrate(pg_url, [TRIED])


async def test_a_failing_migration_leaves_nothing_behind_and_is_not_recorded(pg_url: str, package: Path) -> None:
    (package / "0001_first.sql").write_text("CREATE TABLE things (id text); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrations.migrate(pg_url, [TRIED])
    (package / "0001_first.sql").write_text("CREATE TABLE things (id text);")
    assert await migrations.migrate(pg_url, [TRIED]) == ["tried: kalends_tried/0001_first.sql"]


async def test_an_index_is_built_concurrently_while_another_run_waits(pg_url: str, package: Path) -> None:
    (package / "0001_first.sql").write_text("CREATE TABLE things (id text, name text);")
    (package / "0002_index.sql").write_text(
        "-- kalends: no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS things_name;\n"
        "CREATE INDEX CONCURRENTLY things_name ON things (name);\n"
    )
    async with asyncio.timeout(120):
        both = await asyncio.gather(migrations.migrate(pg_url, [TRIED]), migrations.migrate(pg_url, [TRIED]))
    idle, busy = sorted(both, key=len)
    assert (idle, busy[-2:]) == ([], ["tried: kalends_tried/0001_first.sql", "tried: kalends_tried/0002_index.sql"])
    conn = await asyncpg.connect(pg_url)
    assert await conn.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'tried.things_name'::regclass")
    await conn.close()


async def test_a_migration_waits_its_turn_for_a_lock(
    pg_url: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "100ms")
    (package / "0001_first.sql").write_text("CREATE TABLE things (id text);")
    await migrations.migrate(pg_url, [TRIED])
    (package / "0002_second.sql").write_text("ALTER TABLE things ADD COLUMN name text;")
    holder = await asyncpg.connect(pg_url)
    await holder.execute("BEGIN; LOCK TABLE tried.things")
    running = asyncio.create_task(migrations.migrate(pg_url, [TRIED]))
    await asyncio.sleep(0.5)
    assert not running.done()
    await holder.execute("COMMIT")
    assert await running == ["tried: kalends_tried/0002_second.sql"]
    await holder.close()


async def test_a_service_reads_no_other_schema_and_cannot_touch_the_ledger(pg_url: str, package: Path) -> None:
    (package / "0001_first.sql").write_text("CREATE TABLE things (id text);")
    await migrations.migrate(pg_url, [SCHEMA, TRIED])
    db = await Database.connect(pg_url, SCHEMA.name)
    assert await db.pool.fetchval("SELECT current_user") == role_of(SCHEMA.name)
    for statement in (
        "SELECT * FROM tried.things",
        "DELETE FROM schema_migrations",
        "UPDATE events SET type = 'x'",
        "DELETE FROM events",
        "TRUNCATE events",
        "UPDATE epoch SET tx_offset = 0",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "CREATE TABLE mine (id text)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.pool.execute(statement)
    await db.close()
