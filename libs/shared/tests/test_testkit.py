"""The test kit itself: real servers, apart from each other, gone with the run."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import nats
import pytest
from redis.asyncio import Redis

from kalends_shared.servers import Nats, Postgres, Valkey, postgres
from kalends_shared.testkit.infra import Databases
from kalends_shared.testkit.waiting import eventually


async def test_a_database_of_its_own_is_empty(pg_url: str) -> None:
    connection = await asyncpg.connect(pg_url)
    try:
        assert await connection.fetchval("SHOW server_version") == "18.6"
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        await connection.execute("CREATE TABLE left_behind ()")
    finally:
        await connection.close()


async def test_a_copy_has_what_its_template_has(databases: Databases) -> None:
    template = await databases.create()
    connection = await asyncpg.connect(template)
    await connection.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
    await connection.close()

    copy = await databases.create(template=template)

    connection = await asyncpg.connect(copy)
    assert await connection.fetchval("SELECT n FROM t") == 7
    await databases.drop(copy)  # with us still connected, as a killed service would be
    await connection.close()


async def test_the_shared_nats_has_jetstream_and_takes_large_messages(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    try:
        assert client.max_payload == 8 * 1024 * 1024
        assert (await client.jetstream().account_info()).streams >= 0
    finally:
        await client.close()


async def test_redis_is_empty_for_every_test(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_redis_is_emptied_after_the_test_before(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_a_killed_postgres_comes_back_with_what_it_acknowledged(own_pg: Postgres) -> None:
    url = own_pg.url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE t (n int)")
    await connection.execute("INSERT INTO t VALUES (7)")

    own_pg.kill()
    own_pg.start()

    connection.terminate()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT n FROM t") == 7
    await connection.close()


async def test_a_killed_nats_comes_back_with_its_streams_and_a_wiped_one_without(own_nats: Nats) -> None:
    url = own_nats.url

    async def streams() -> list[str]:
        client = await nats.connect(url)
        try:
            return [stream.config.name or "" for stream in await client.jetstream().streams_info()]
        finally:
            await client.close()

    client = await nats.connect(url, allow_reconnect=False)
    await client.jetstream().add_stream(name="S", subjects=["s.>"])
    await client.close()

    own_nats.kill()
    own_nats.start()
    assert await streams() == ["S"]

    own_nats.wipe()
    own_nats.start()
    assert await streams() == []


async def test_a_valkey_restarts_at_its_url_and_forgets(own_redis: Valkey) -> None:
    async with Redis.from_url(own_redis.url) as client:
        await client.set("k", "v")
    own_redis.restart()
    async with Redis.from_url(own_redis.url) as client:
        assert await client.get("k") is None


def test_root_drops_to_nobody_where_it_may_not_make_a_namespace(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_can_unshare", lambda: False)
    own_directory.chmod(0o755)
    server = Postgres(own_directory / "postgres", durable=False)
    server.start()
    try:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
        assert server.ready()
    finally:
        server.kill()


@pytest.mark.parametrize("ending", ["in order", "killed"])
def test_nothing_outlives_a_run_however_it_ends(tmp_path: Path, ending: str) -> None:
    """A run within the run: what it started is gone, and its directory too."""
    inner = tmp_path / "test_inner.py"
    inner.write_text(
        "import os, pathlib, threading\n"
        "def test_it(pg_url, nats_url, own_redis):\n"
        f"    pathlib.Path({str(tmp_path / 'run')!r}).write_text(os.environ['KALENDS_TEST_RUN'])\n"
        f"    threading.Event().wait({0 if ending == 'in order' else 600})\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "kalends_shared.testkit.plugin", "-o", "asyncio_mode=auto"]
    scopes = ["asyncio_default_fixture_loop_scope=session", "asyncio_default_test_loop_scope=session"]
    options = [word for scope in scopes for word in ("-o", scope)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    with subprocess.Popen([*command, *options, str(inner)], cwd=tmp_path, env=environ) as run:
        eventually(lambda: (tmp_path / "run").exists() and (tmp_path / "run").stat().st_size > 0, 120)
        if ending == "killed":
            assert _mentioning((tmp_path / "run").read_text())
            run.kill()
        assert run.wait(120) == (0 if ending == "in order" else -signal.SIGKILL)
    directory = Path((tmp_path / "run").read_text())
    eventually(lambda: not _mentioning(str(directory)) and not directory.exists())


def _mentioning(text: str) -> list[str]:
    """Command lines of processes that name `text`; those of servers name their directory."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if text in line]
