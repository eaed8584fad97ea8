"""The table of subscriptions, and the version of an account's set of them by which caches know that they are old."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from kalends_shared.contracts.webhooks import WebhookIn
from kalends_shared.db import Connection, Queryable
from kalends_webhooks.domain.subscription import Retiring, Subscription

_COLUMNS: Final = """s.tenant_id, s.id, s.version, s.created_at, s.updated_at, s.wanted, s.disabled_reason, s.secret,
    s.secret_hint, s.previous_secret, s.previous_until, s.earlier_secrets, s.earlier_until"""
OF_TENANTS: Final = f"""
SELECT f.tenant_id AS feed, f.subscriptions_version, {_COLUMNS}
FROM feeds f LEFT JOIN subscriptions s ON s.tenant_id = f.tenant_id
WHERE f.tenant_id = ANY ($1)
"""  # noqa: S608 (our own column names, here and below)
ONE: Final = f"SELECT {_COLUMNS} FROM subscriptions s WHERE s.tenant_id = $1 AND s.id = $2"  # noqa: S608
LOCKED: Final = ONE + " FOR NO KEY UPDATE"
MANY: Final = f"""
SELECT {_COLUMNS}
FROM unnest($1::text[], $2::text[]) AS w (tenant_id, id)
JOIN subscriptions s ON s.tenant_id = w.tenant_id AND s.id = w.id
"""  # noqa: S608
EXISTS: Final = "SELECT EXISTS (SELECT 1 FROM subscriptions WHERE tenant_id = $1 AND id = $2)"
PAGE: Final = f"""
SELECT {_COLUMNS} FROM subscriptions s
WHERE s.tenant_id = $1 AND ($2::timestamptz IS NULL OR (s.created_at, s.id) < ($2, $3))
ORDER BY s.created_at DESC, s.id DESC LIMIT $4 OFFSET $5
"""  # noqa: S608
COUNT: Final = "SELECT count(*) FROM subscriptions WHERE tenant_id = $1"
INSERT: Final = """
INSERT INTO subscriptions (tenant_id, id, version, created_at, updated_at, wanted, secret, secret_hint, max_in_flight,
    rate_limit, ordered)
VALUES ($1, $2, 1, $3, $3, $4, $5, $6, $7, $8, $9)
"""
UPDATE: Final = """
UPDATE subscriptions SET version = $3, updated_at = $4, wanted = $5, disabled_reason = $6, secret = $7, secret_hint = $8,
    previous_secret = $9, previous_until = $10, failing_since = CASE WHEN $11 THEN NULL ELSE failing_since END,
    max_in_flight = $12, rate_limit = $13, ordered = $14, earlier_secrets = $15, earlier_until = $16
WHERE tenant_id = $1 AND id = $2
"""
DELETE: Final = "DELETE FROM subscriptions WHERE tenant_id = $1 AND id = $2"
# The feed's lock comes first: it orders this change against the making of events, which choose by these rows.
CHANGED: Final = """
INSERT INTO feeds (tenant_id, subscriptions_version) VALUES ($1, 1)
ON CONFLICT (tenant_id) DO UPDATE SET subscriptions_version = feeds.subscriptions_version + 1
"""
FAILING: Final = """
SELECT s.tenant_id, s.id, s.failing_since FROM unnest($1::text[], $2::text[]) AS g (tenant_id, id)
JOIN subscriptions s ON s.tenant_id = g.tenant_id AND s.id = g.id
WHERE s.failing_since IS NOT NULL
"""

_wanted: Final = msgspec.json.Decoder(WebhookIn)


def read(row: Mapping[str, Any]) -> Subscription:
    return Subscription(
        id=row["id"],
        tenant_id=row["tenant_id"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        wanted=_wanted.decode(row["wanted"]),
        disabled_reason=row["disabled_reason"],
        secret=row["secret"],
        secret_hint=row["secret_hint"],
        retiring=tuple(_retiring(row)),
    )


def _retiring(row: Mapping[str, Any]) -> Iterator[Retiring]:
    if row["previous_secret"] is not None:
        yield Retiring(row["previous_secret"], row["previous_until"])
    yield from map(Retiring, row["earlier_secrets"], row["earlier_until"])


async def of_tenants(conn: Connection, tenants: Sequence[str]) -> dict[str, tuple[int, list[Subscription]]]:
    """The subscriptions of accounts, with the version of each account's set; an account without a feed has version 0."""
    found: dict[str, tuple[int, list[Subscription]]] = {tenant: (0, []) for tenant in tenants}
    for row in await conn.fetch(OF_TENANTS, tenants):
        _, listed = found[row["feed"]]
        if row["id"] is not None:
            listed.append(read(row))
        found[row["feed"]] = (row["subscriptions_version"], listed)
    return found


async def one(conn: Queryable, tenant: str, webhook_id: str, *, lock: bool = False) -> Subscription | None:
    """A subscription; `conn` may be a pool. With `lock` nobody else changes it before this transaction ends."""
    row = await conn.fetchrow(LOCKED if lock else ONE, tenant, webhook_id)
    return None if row is None else read(row)


async def exists(conn: Queryable, tenant: str, webhook_id: str) -> bool:
    return bool(await conn.fetchval(EXISTS, tenant, webhook_id))


async def many(conn: Queryable, keys: Iterable[tuple[str, str]]) -> list[Subscription]:
    """The subscriptions of these (account, id); those that are gone are left out."""
    listed = list(keys)
    rows = await conn.fetch(MANY, [tenant for tenant, _ in listed], [webhook_id for _, webhook_id in listed])
    return [read(row) for row in rows]


async def page(
    conn: Queryable, tenant: str, after: tuple[datetime, str] | None, limit: int, offset: int
) -> list[Subscription]:
    """Newest first, after a (created_at, id)."""
    created_at, webhook_id = after or (None, None)
    return [read(row) for row in await conn.fetch(PAGE, tenant, created_at, webhook_id, limit, offset)]


async def count(conn: Queryable, tenant: str) -> int:
    return int(await conn.fetchval(COUNT, tenant))


async def changed(conn: Connection, tenant: str) -> None:
    """Takes the feed's lock and makes every cache of the account's subscriptions old; before any other write."""
    await conn.execute(CHANGED, tenant)


async def insert(conn: Connection, made: Subscription) -> None:
    await conn.execute(
        INSERT,
        made.tenant_id,
        made.id,
        made.created_at,
        msgspec.json.encode(made.wanted),
        made.secret,
        made.secret_hint,
        *_bounds(made),
    )


async def update(conn: Connection, changed: Subscription, *, revived: bool = False) -> None:
    """Writes all that may change; `revived` forgets since when it has failed."""
    previous, earlier = next(iter(changed.retiring), None), changed.retiring[1:]
    await conn.execute(
        UPDATE,
        changed.tenant_id,
        changed.id,
        changed.version,
        changed.updated_at,
        msgspec.json.encode(changed.wanted),
        changed.disabled_reason,
        changed.secret,
        changed.secret_hint,
        previous.secret if previous else None,
        previous.until if previous else None,
        revived,
        *_bounds(changed),
        [one.secret for one in earlier],
        [one.until for one in earlier],
    )


def _bounds(subscription: Subscription) -> tuple[int | None, int | None, bool]:
    wanted = subscription.wanted
    return wanted.max_in_flight, wanted.rate_limit_per_second, wanted.ordered


async def delete(conn: Connection, tenant: str, webhook_id: str) -> None:
    await conn.execute(DELETE, tenant, webhook_id)


async def failing_since(conn: Queryable, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], datetime]:
    """Since when these (account, id) have failed without a success; those that do well are left out."""
    listed = list(keys)
    rows = await conn.fetch(FAILING, [tenant for tenant, _ in listed], [webhook_id for _, webhook_id in listed])
    return {(row["tenant_id"], row["id"]): row["failing_since"] for row in rows}
