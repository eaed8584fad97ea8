"""How far calendars have been read, and the leases under which they are."""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from kalends_calendar_sync.providers.base import Located
from kalends_shared.db import Connection

INSERT: Final = "INSERT INTO cursors (tenant_id, calendar_id, wake_at) VALUES ($1, $2, now())"
# Those that failed last wait for those that did not, so that servers that hang hold up none that answer.
CLAIM: Final = """
UPDATE cursors c SET lease_until = now() + make_interval(secs => $2), fence = c.fence + 1
FROM (
    SELECT tenant_id, calendar_id FROM cursors
    WHERE wake_at <= now() AND (lease_until IS NULL OR lease_until < now())
    ORDER BY failures > 0, wake_at LIMIT $1 FOR UPDATE SKIP LOCKED
) due
WHERE c.tenant_id = due.tenant_id AND c.calendar_id = due.calendar_id
RETURNING c.tenant_id, c.calendar_id, c.fence, c.location, c.token, c.whole_at, c.told_at, c.failures, c.asked,
    c.refresh, c.orphaned
"""
RENEW: Final = """
UPDATE cursors SET lease_until = now() + make_interval(secs => $4)
WHERE tenant_id = $1 AND calendar_id = $2 AND fence = $3 RETURNING 1
"""
HOLD: Final = "SELECT 1 FROM cursors WHERE tenant_id = $1 AND calendar_id = $2 AND fence = $3 FOR UPDATE"
LOCATE: Final = "UPDATE cursors SET location = $4 WHERE tenant_id = $1 AND calendar_id = $2 AND fence = $3"
LOCATION: Final = "SELECT location FROM cursors WHERE tenant_id = $1 AND calendar_id = $2"
DONE: Final = """
UPDATE cursors SET lease_until = NULL, token = $5,
    wake_at = CASE WHEN (asked AND NOT $9) OR (refresh AND NOT $10) OR orphaned THEN now()
        ELSE now() + make_interval(secs => $4) END,
    whole_at = coalesce($6, whole_at), told_at = coalesce($7, told_at), failures = 0, error = $8,
    asked = asked AND NOT $9, refresh = refresh AND NOT $10
WHERE tenant_id = $1 AND calendar_id = $2 AND fence = $3
"""
FAILED: Final = """
UPDATE cursors SET lease_until = NULL, wake_at = now() + make_interval(secs => $4), failures = failures + 1,
    error = $5, asked = false
WHERE tenant_id = $1 AND calendar_id = $2 AND fence = $3
"""
ASK: Final = """
UPDATE cursors SET wake_at = now(), asked = true WHERE tenant_id = $1 AND calendar_id = $2
"""
# $3: it is another calendar now, so what was known of the one before is gone.
RESTART: Final = """
UPDATE cursors SET wake_at = now(), lease_until = NULL, fence = fence + 1, location = NULL, token = NULL, failures = 0,
    refresh = true, asked = asked OR $3
WHERE tenant_id = $1 AND calendar_id = $2
"""
REFRESH: Final = """
UPDATE cursors SET wake_at = now(), refresh = true
FROM calendars c
WHERE c.tenant_id = $1 AND c.host_id = $2 AND cursors.tenant_id = c.tenant_id AND cursors.calendar_id = c.id
"""
ORPHAN: Final = """
UPDATE cursors SET wake_at = now(), orphaned = true
FROM calendars c
WHERE c.tenant_id = $1 AND c.host_id = $2 AND cursors.tenant_id = c.tenant_id AND cursors.calendar_id = c.id
"""
DELETE: Final = "DELETE FROM cursors WHERE tenant_id = $1 AND calendar_id = $2"
BACKLOG: Final = """
SELECT count(*) FILTER (WHERE wake_at <= now() AND (lease_until IS NULL OR lease_until < now())) AS due,
    count(*) FILTER (WHERE failures > 0) AS failing
FROM cursors
"""


class Claim(Struct, frozen=True):
    """A lease on one calendar, and where its reading stands."""

    tenant_id: str
    calendar_id: str
    fence: int
    location: Located | None
    token: str | None
    whole_at: datetime | None
    told_at: datetime | None
    failures: int
    asked: bool
    refresh: bool
    orphaned: bool

    @property
    def key(self) -> tuple[str, str, int]:
        return self.tenant_id, self.calendar_id, self.fence


class Done(Struct, frozen=True, kw_only=True):
    """How a reading ended: when the next one is, from where on, and what it was."""

    pause: float
    token: str | None
    whole_at: datetime | None
    told_at: datetime | None
    error: str | None = None
    asked: bool
    refreshed: bool


class LeaseLost(Exception):  # noqa: N818 (it is an outcome: somebody else goes on)
    """Another worker has taken the work over."""


async def claim(pool: Any, limit: int, seconds: float) -> list[Claim]:
    rows = await pool.fetch(CLAIM, limit, seconds)
    return [Claim(**(dict(row) | {"location": _located(row["location"])})) for row in rows]


async def renew(pool: Any, lease: Claim, seconds: float) -> None:
    """Raises LeaseLost where it is not ours any more."""
    if await pool.fetchval(RENEW, *lease.key, seconds) is None:
        raise LeaseLost


async def hold(conn: Connection, lease: Claim) -> None:
    """Keeps everybody else from taking the lease until the transaction ends.

    Raises:
        LeaseLost: somebody has.
    """
    if await conn.fetchval(HOLD, *lease.key) is None:
        raise LeaseLost


async def locate(pool: Any, lease: Claim, found: Located) -> None:
    await pool.execute(LOCATE, *lease.key, msgspec.json.encode(found))


async def location(pool: Any, tenant: str, calendar_id: str) -> Located | None:
    return _located(await pool.fetchval(LOCATION, tenant, calendar_id))


async def done(conn: Connection, lease: Claim, how: Done) -> None:
    await conn.execute(
        DONE, *lease.key, how.pause, how.token, how.whole_at, how.told_at, how.error, how.asked, how.refreshed
    )


async def failed(conn: Connection, lease: Claim, pause: float, error: str) -> None:
    await conn.execute(FAILED, *lease.key, pause, error)


def _located(raw: bytes | None) -> Located | None:
    return None if raw is None else msgspec.json.decode(raw, type=Located)
