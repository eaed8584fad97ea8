"""Where the servers of a test run come from, and who stops them.

PostgreSQL is one for the run, kept by a process of its own (`keeper`), because any worker of pytest-xdist may be the
first to need it and the first to leave. NATS and Valkey are one a worker: streams and channels have fixed names.
"""

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from kalends_shared.servers import Nats, Valkey
from kalends_shared.testkit import containers, keeper

_RUN = "KALENDS_TEST_RUN"
_START_TIMEOUT = 180  # an image may have to be fetched


@dataclass(frozen=True)
class Infra:
    """URLs; `postgres` is one that may create databases."""

    postgres: str
    nats: str
    redis: str


def mode() -> str:
    chosen = os.environ.get("KALENDS_TEST_INFRA", "embedded")
    if chosen not in {"embedded", "containers", "external"}:
        raise ValueError(f"KALENDS_TEST_INFRA is embedded, containers or external, not {chosen!r}")
    return chosen


def begin_run() -> None:
    """In the process that owns the run, before its workers are started: they inherit the directory's name."""
    os.environ[_RUN] = tempfile.mkdtemp(prefix="kalends-test-")
    keeper.sign(Path(os.environ[_RUN]))


def end_run() -> None:
    run = Path(os.environ.pop(_RUN))
    keeper.dismiss(run)
    shutil.rmtree(run, ignore_errors=True)


@contextmanager
def connect(worker_id: str) -> Iterator[Infra]:
    """The servers of one worker: `worker_id` is pytest-xdist's (gw0, gw1, ... or master)."""
    if mode() == "external":
        yield _external(worker_id)
        return
    run = Path(os.environ[_RUN])
    postgres = _kept_postgres(run)
    with ExitStack() as stack:
        if mode() == "containers":
            yield Infra(postgres, stack.enter_context(containers.nats()), stack.enter_context(containers.valkey()))
            return
        nats = Nats(run / f"nats-{worker_id}", durable=False)
        valkey = Valkey(run / f"valkey-{worker_id}", durable=False)
        stack.callback(nats.kill)
        stack.callback(valkey.kill)
        nats.start()
        valkey.start()
        yield Infra(postgres, nats.url, valkey.url)


class Databases:
    """Makes databases on the run's server, named after the run and worker, and drops them."""

    def __init__(self, admin_url: str, worker_id: str) -> None:
        self._admin_url = admin_url
        self._prefix = f"kalends_test_{worker_id}_{secrets.token_hex(4)}"
        self._made: list[str] = []
        self._templates: dict[tuple[Any, ...], str] = {}
        self._count = 0

    async def create(self, template: str | None = None) -> str:
        """A new database and its URL. `template`: the URL of one to copy, which nobody may be connected to."""
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        source = "template1" if template is None else urlsplit(template).path.lstrip("/")
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        url = urlunsplit(urlsplit(self._admin_url)._replace(path=f"/{name}"))
        self._made.append(url)
        return url

    async def template(self, schemas: Sequence[Any]) -> str:
        """A database with these schemas, to be copied; made once a worker, whichever package's tests ask first."""
        from kalends_shared.migrations import migrate

        wanted = tuple(schemas)
        if wanted not in self._templates:
            url = await self.create()
            await migrate(url, list(wanted))
            self._templates[wanted] = url
        return self._templates[wanted]

    async def drop(self, url: str) -> None:
        """Also where a test, or what it killed, left connections behind."""
        await self._execute(f'DROP DATABASE "{urlsplit(url).path.lstrip("/")}" WITH (FORCE)')
        self._made.remove(url)

    async def drop_all(self) -> None:
        for url in list(self._made):
            await self.drop(url)

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


async def empty_redis(url: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(url) as client:
        await client.flushall()


def _external(worker_id: str) -> Infra:
    index = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    urls = {}
    for name in ("KALENDS_NATS_URL", "KALENDS_REDIS_URL"):
        given = os.environ[name].split()
        if index >= len(given):
            raise ValueError(f"{name} names {len(given)} servers; worker {worker_id} needs one of its own (or use -n0)")
        urls[name] = given[index]
    return Infra(os.environ["KALENDS_DATABASE_URL"], urls["KALENDS_NATS_URL"], urls["KALENDS_REDIS_URL"])


def _kept_postgres(run: Path) -> str:
    """The URL of the run's PostgreSQL; the first worker that asks has it started, the others wait for it here."""
    url = run / "postgres.url"
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not url.exists():
            command = [sys.executable, "-m", "kalends_shared.testkit.keeper", str(run), mode()]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_START_TIMEOUT, check=False)
            if done.returncode != 0:
                raise RuntimeError((run / "keeper.log").read_text(encoding="utf-8"))
    return url.read_text(encoding="utf-8")
