"""A migrated database, and a client of the handlers over it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from kalends_booking.handlers.context import Context
from kalends_booking.schema import SCHEMA
from kalends_shared.db import Database
from kalends_shared.migrations import Schema

from .world import AlwaysOpen, Client, event_type


@pytest.fixture(scope="session")
def schemas() -> Sequence[Schema]:
    return (SCHEMA,)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url, SCHEMA.name, size=6)
    yield database
    await database.close()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """The database's owner, whose statements may last: the service's own end after seconds."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": SCHEMA.name})
    yield connection
    await connection.close()


@pytest.fixture
def quotes() -> AlwaysOpen:
    return AlwaysOpen(event_type())


@pytest.fixture
def client(db: Database, quotes: AlwaysOpen) -> Client:
    async def nudge() -> None:
        return

    return Client(Context(db, quotes, nudge))
