"""A migrated database with every shared part, and a pool on it."""

import secrets
from collections.abc import AsyncIterator, Sequence

import pytest
from nats.aio.client import Client

from kalends_shared import db as database
from kalends_shared import nats
from kalends_shared.db import Database
from kalends_shared.jetstream import stream_name
from kalends_shared.migrations import Schema

from .helpers import SCHEMA, api
from .sink import Sink


@pytest.fixture(scope="session")
def schemas() -> Sequence[Schema]:
    return (SCHEMA,)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine stands still, a transaction may last longer than a service would let it."""
    patient = {"transaction_timeout": "60s", "idle_in_transaction_session_timeout": "60s", "lock_timeout": "30s"}
    monkeypatch.setattr(database, "SETTINGS", {**database.SETTINGS, **patient})


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url, SCHEMA.name, size=8)
    yield database
    await database.close()


@pytest.fixture
def context() -> str:
    """A context of this test's own: the server's streams outlive a test."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_url, "test")
    yield client
    await client.close()


@pytest.fixture
async def sink(db: Database, database_url: str) -> Sink:
    return await Sink.create(db, database_url)


@pytest.fixture
async def source(bus: Client, context: str) -> AsyncIterator[str]:
    """A stream that a test writes itself."""
    await api(
        bus,
        f"STREAM.CREATE.{stream_name(context)}",
        {"name": stream_name(context), "subjects": [f"kalends.ev.{context}.>"]},
    )
    yield context
    await api(bus, f"STREAM.DELETE.{stream_name(context)}")
