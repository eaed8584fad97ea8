"""Secret keys are replaced: what old ones have sealed opens by the newest alone, once `kalends rewrap` has been run."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from kalends_calendar_sync import vault as calendars
from kalends_calendar_sync.schema import SCHEMA as CALENDAR_SYNC
from kalends_cli.__main__ import main
from kalends_shared import db, rewrapping
from kalends_shared.migrations import Schema
from kalends_shared.seal import Keyring
from kalends_webhooks import vault as webhooks
from kalends_webhooks.schema import SCHEMA as WEBHOOKS

OLD, NEW, OTHER = (Keyring.generate() for _ in range(3))
TENANTS: Final = ("acc_1-live", "acc_2-live")
CALENDAR: Final = """
INSERT INTO calendars (tenant_id, id, host_id, provider, url, username, sealed, credentials, reads_busy, writes_bookings,
    status, metadata, host_zone, version, stream_version, created_at, updated_at)
VALUES ($1, $2, 'hst_1', 'caldav', 'https://example.com', 'ana', $3, 2, true, false, 'connected', '{}', 'UTC', 1, 1, now(), now())
"""
WEBHOOK: Final = """
INSERT INTO subscriptions (tenant_id, id, version, created_at, updated_at, wanted, secret, secret_hint, ordered,
    previous_secret, previous_until, earlier_secrets, earlier_until)
VALUES ($1, $2, 1, now(), now(), '{}', $3, 'x', false, $4, now(), $5, array_fill(now(), ARRAY[cardinality($5::bytea[])]))
"""


@pytest.fixture(scope="session")
def schemas() -> Sequence[Schema]:
    return (CALENDAR_SYNC, WEBHOOKS)


class Stored:
    """What the two services have stored."""

    def __init__(self, webhooks_: "asyncpg.Connection[Any]", calendars_: "asyncpg.Connection[Any]") -> None:
        self._webhooks, self._calendars = webhooks_, calendars_

    async def webhook(self, tenant: str, webhook_id: str, key: str, *secrets: bytes) -> None:
        """One with its secret, those that it has replaced behind it."""
        record = webhooks.belongs_to(tenant, webhook_id)
        newest, *older = [Keyring.parse(key).seal(secret, record) for secret in secrets]
        await self._webhooks.execute(WEBHOOK, tenant, webhook_id, newest, next(iter(older), None), older[1:])

    async def calendar(self, tenant: str, calendar_id: str, key: str, password: str | None) -> None:
        await self._calendars.execute(
            CALENDAR, tenant, calendar_id, calendars.seal(Keyring.parse(key), password, tenant, calendar_id, 2)
        )

    async def secrets(self, key: str, tenant: str, webhook_id: str) -> list[bytes]:
        """A webhook's secrets, opened by one key."""
        row = await self._webhooks.fetchrow(
            "SELECT * FROM subscriptions WHERE tenant_id = $1 AND id = $2", tenant, webhook_id
        )
        assert row is not None
        sealed = [one for one in (row["secret"], row["previous_secret"], *row["earlier_secrets"]) if one is not None]
        return [Keyring.parse(key).open(one, webhooks.belongs_to(tenant, webhook_id)) for one in sealed]

    async def password(self, key: str, tenant: str, calendar_id: str) -> str | None:
        sealed = await self._calendars.fetchval(
            "SELECT sealed FROM calendars WHERE tenant_id = $1 AND id = $2", tenant, calendar_id
        )
        return calendars.opened(Keyring.parse(key), sealed, tenant, calendar_id, 2)


@pytest.fixture
async def stored(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Stored]:
    monkeypatch.setenv("KALENDS_DATABASE_URL", database_url)
    monkeypatch.setenv("KALENDS_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("KALENDS_SECRET_KEY", f"{NEW},{OLD}")
    webhooks_ = await db.direct(database_url, WEBHOOKS.name)
    calendars_ = await db.direct(database_url, CALENDAR_SYNC.name)
    yield Stored(webhooks_, calendars_)
    await webhooks_.close()
    await calendars_.close()


async def rewrap() -> int:
    return await asyncio.to_thread(main, ["rewrap"])


async def test_every_secret_opens_by_the_newest_key_alone(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rewrapping, "PAGE", 2)
    for tenant in TENANTS:
        await stored.webhook(tenant, "whk_1", OLD, b"one")
        await stored.webhook(tenant, "whk_2", OLD, b"two", b"before", b"long before", b"at first")
        await stored.calendar(tenant, "cal_1", OLD, "secret")
        await stored.calendar(tenant, "cal_2", OLD, None)
    await stored.webhook(TENANTS[0], "whk_3", NEW, b"three", b"before")

    assert await rewrap() == 0
    assert "webhooks: 4 put" in (said := capsys.readouterr().out)
    assert "calendar_sync: 2 put" in said
    for tenant in TENANTS:
        assert await stored.secrets(NEW, tenant, "whk_1") == [b"one"]
        assert await stored.secrets(NEW, tenant, "whk_2") == [b"two", b"before", b"long before", b"at first"]
        assert await stored.password(NEW, tenant, "cal_1") == "secret"
        assert await stored.password(NEW, tenant, "cal_2") is None
    assert await stored.secrets(NEW, TENANTS[0], "whk_3") == [b"three", b"before"]

    assert await rewrap() == 0
    assert "webhooks: 0 put" in (said := capsys.readouterr().out)
    assert "calendar_sync: 0 put" in said


async def test_what_no_key_opens_is_named_and_left_and_stops_nothing(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    await stored.webhook(TENANTS[0], "whk_1", OTHER, b"lost")
    await stored.webhook(TENANTS[0], "whk_2", OLD, b"kept")

    assert await rewrap() == 1
    said = capsys.readouterr()
    assert "webhooks: 1 put under the newest key, 1 do not open" in said.out
    assert f"whk_1 of {TENANTS[0]}: sealed by key" in said.err
    assert await stored.secrets(OTHER, TENANTS[0], "whk_1") == [b"lost"]
    assert await stored.secrets(NEW, TENANTS[0], "whk_2") == [b"kept"]


async def test_a_key_that_is_none_is_told(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KALENDS_SECRET_KEY", "short")
    assert await rewrap() == 1
    monkeypatch.delenv("KALENDS_SECRET_KEY")
    assert await rewrap() == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "KALENDS_SECRET_KEY: a secret key" in first
    assert "KALENDS_SECRET_KEY says" in second
