"""Real calendar servers for the tests of this service."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from kalends_calendar_sync.schema import SCHEMA
from kalends_shared.migrations import Schema

sys.path.insert(0, str(Path(__file__).parent))

from peers import SERVERS, CalendarServer, serve
from world import World


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], CalendarServer]]:
    """Makes calendars on servers by name, each of which is started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def started(name: str) -> Callable[[], CalendarServer]:
            return stack.enter_context(serve(name, tmp_path_factory.mktemp(name) / "calendars"))

        yield lambda name: started(name)()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], CalendarServer]) -> CalendarServer:
    """An empty calendar on each server that this machine has."""
    return servers(request.param)


@pytest.fixture
def radicale(servers: Callable[[str], CalendarServer]) -> CalendarServer:
    return servers("radicale")


@pytest.fixture(scope="session")
def schemas() -> tuple[Schema, ...]:
    return (SCHEMA,)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    made = await World.open(database_url)
    yield made
    await made.db.close()
