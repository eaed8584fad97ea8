"""A migrated database, a bus, and clients of the handlers over them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client as Bus

from kalends_availability.schema import SCHEMA
from kalends_shared import migrations, nats
from kalends_shared.db import Database
from kalends_shared.migrations import Schema
from kalends_shared.servers import Nats
from kalends_shared.testkit.infra import Databases, Infra

from .service.source import Source
from .service.world import Client, Node


@pytest.fixture(scope="session")
def schemas() -> Sequence[Schema]:
    # The sources' own schemas hold nothing but their events here.
    return (
        SCHEMA,
        Schema(name="booking", parts=("event_store",)),
        Schema(name="calendar_sync", parts=("event_store",)),
    )


@pytest.fixture(scope="session")
async def db(databases: Databases, schemas: Sequence[Schema]) -> AsyncIterator[Database]:
    """One database for all tests: each has a tenant of its own."""
    url = await databases.create()
    await migrations.migrate(url, list(schemas))
    database = await Database.connect(url, SCHEMA.name, size=6)
    yield database
    await database.close()
    await databases.drop(url)


@pytest.fixture
async def owner(db: Database) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """The database's owner, whose transactions may last: the service's own end after seconds."""
    connection = await asyncpg.connect(db.url, server_settings={"search_path": db.schema})
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def bus(test_infra: Infra) -> AsyncIterator[Bus]:
    connection = await nats.connect(test_infra.nats, "test")
    yield connection
    await connection.close()


@pytest.fixture
async def node(db: Database, bus: Bus) -> Node:
    return await Node.start(db, bus)


@pytest.fixture
def api(node: Node) -> Client:
    return Client(node)


@pytest.fixture
async def own_bus(own_nats: Nats) -> AsyncIterator[Bus]:
    connection = await nats.connect(own_nats.url, "test")
    yield connection
    await connection.close()


@pytest.fixture
async def source(database_url: str, own_bus: Bus) -> AsyncIterator[Source]:
    database = await Database.connect(database_url, "booking", size=3)
    yield Source(database, own_bus)
    await database.close()
