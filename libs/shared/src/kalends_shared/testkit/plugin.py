"""Real servers for tests, as pytest fixtures; every test run loads this plugin (pyproject.toml, addopts).

    async def test_something(pg_url, nats_url, redis_url): ...     # URLs, as a service gets them

    pg_url        a fresh, empty database for this test
    database_url  a fresh database with the schemas of the fixture `schemas`, copied from a template that is migrated
                  once a worker; in your conftest.py: `@pytest.fixture(scope="session")` `def schemas(): return (SCHEMA,)`
    nats_url      a JetStream server of this worker: streams of earlier tests are still there
    redis_url     a Valkey of this worker, emptied before this test
    own_pg, own_nats, own_redis
                  a server of this test's own (kalends_shared.servers): .url .kill() .start() .stop() .restart()
                  .wipe(); after kill or stop, start() brings it back at the same URL with its data
    databases     makes databases, where a test needs several: `await databases.create()` -> URL
    figure        tells a figure, which stands at the end of the run's report: `figure("12 duplicates of 960")`

KALENDS_TEST_INFRA says where the shared servers come from: `embedded` (default) the wheels, `containers` Docker,
`external` KALENDS_DATABASE_URL (a role that may create databases and roles), KALENDS_NATS_URL and KALENDS_REDIS_URL;
with pytest-xdist the last two name one server a worker, separated by spaces. What a test kills is always its own, out
of the wheels. PostgreSQL is started once a run, by the first worker that asks; nothing outlives the run.

How much a test tries is `scale.count(reduced=..., full=...)`; one that makes sense only at the full figure is marked
`full`. Waiting is `waiting.eventually`.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from kalends_shared.servers import Nats, Postgres, Server, Valkey
from kalends_shared.testkit import infra, scale

S = TypeVar("S", bound=Server)
FIGURE: Final = "kalends.figure"


def pytest_configure(config: pytest.Config) -> None:
    scale.set_up_hypothesis()
    if not hasattr(config, "workerinput"):
        infra.begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        infra.end_run()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, figure in report.user_properties:
                if name == FIGURE:
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {figure}")


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    def tell(figure: str) -> None:
        record_property(FIGURE, figure)

    return tell


@pytest.fixture(scope="session", autouse=True)
def _patient_with_postgres() -> Iterator[None]:
    """Where a machine has much to do, a connection may take longer than a service would wait for it."""
    from kalends_shared import db, migrations

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "CONNECT_TIMEOUT", 30.0)
        patch.setattr(migrations, "CONNECT_TIMEOUT", 30.0)
        patch.setattr(db, "COMMAND_TIMEOUT", 30.0)
        yield


@pytest.fixture(scope="session")
def test_infra(worker_id: str) -> Iterator[infra.Infra]:
    """The shared servers of this worker. A fixture below is what a test wants."""
    with infra.connect(worker_id) as servers:
        yield servers


@pytest.fixture(scope="session")
async def databases(test_infra: infra.Infra, worker_id: str) -> AsyncIterator[infra.Databases]:
    made = infra.Databases(test_infra.postgres, worker_id)
    yield made
    await made.drop_all()


@pytest.fixture
async def pg_url(databases: infra.Databases) -> AsyncIterator[str]:
    url = await databases.create()
    yield url
    await databases.drop(url)


@pytest.fixture(scope="session")
def schemas() -> Sequence[Any]:
    """The schemas of `database_url`; a package's conftest.py overrides it."""
    return ()


@pytest.fixture
async def template_url(databases: infra.Databases, schemas: Sequence[Any]) -> str:
    """The migrated database that `database_url` copies. Connect to it for as short as possible, or not at all."""
    return await databases.template(schemas)


@pytest.fixture
async def database_url(databases: infra.Databases, template_url: str) -> AsyncIterator[str]:
    url = await databases.create(template=template_url)
    yield url
    await databases.drop(url)


@pytest.fixture
def nats_url(test_infra: infra.Infra) -> str:
    return test_infra.nats


@pytest.fixture
async def redis_url(test_infra: infra.Infra) -> str:
    await infra.empty_redis(test_infra.redis)
    return test_infra.redis


@pytest.fixture
def own_pg(own_directory: Path) -> Iterator[Postgres]:
    with _running(Postgres(own_directory / "postgres", durable=False)) as server:
        yield server


@pytest.fixture
def own_nats(own_directory: Path) -> Iterator[Nats]:
    with _running(Nats(own_directory / "nats", durable=False)) as server:
        yield server


@pytest.fixture
def own_redis(own_directory: Path) -> Iterator[Valkey]:
    with _running(Valkey(own_directory / "valkey", durable=False)) as server:
        yield server


@pytest.fixture
def own_directory() -> Iterator[Path]:
    """A directory gone with the test, whose server's data would fill a disk over many runs."""
    directory = Path(tempfile.mkdtemp(prefix="kalends-own-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _running(server: S) -> Iterator[S]:
    try:
        server.start()
        yield server
    finally:
        server.kill()
