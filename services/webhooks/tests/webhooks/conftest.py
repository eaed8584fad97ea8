"""Real parts: a migrated database with the schemas of booking and webhooks, JetStream, a receiver."""

import socket
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from kalends_shared import db
from kalends_shared.migrations import Schema
from kalends_webhooks.schema import SCHEMA

from .receiver import Receiver
from .rig import BOOKING, Rig


@pytest.fixture(scope="session")
def schemas() -> Sequence[Schema]:
    return (SCHEMA, BOOKING)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine stands still, a transaction may last longer than a service would let it."""
    patient = {"transaction_timeout": "60s", "idle_in_transaction_session_timeout": "60s", "lock_timeout": "30s"}
    monkeypatch.setattr(db, "SETTINGS", {**db.SETTINGS, **patient})


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port of this machine at which nobody listens, nor can while the test goes on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


@pytest.fixture
async def rig(database_url: str, nats_url: str) -> AsyncIterator[Rig]:
    """Booking's event store and relay, and a whole webhooks service in this process."""
    made = await Rig.open(database_url, nats_url)
    async with made.running():
        yield made
    await made.close()


@pytest.fixture
async def still(database_url: str, nats_url: str) -> AsyncIterator[Rig]:
    """The same with nothing running yet."""
    made = await Rig.open(database_url, nats_url)
    yield made
    await made.close()
