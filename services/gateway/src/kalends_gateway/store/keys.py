"""The table api_keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

from kalends_gateway.domain.keys import NewKey
from kalends_shared.db import Connection, Queryable

_COLUMNS: Final = "id, created_at, updated_at, version, name, scopes, mode, type, expires_at, per_minute, per_hour, prefix, last_used_at, metadata"
# What a request needs to know of its key. The secret's hash is what finds its tenant, so no tenant can be named here.
IDENTITY: Final = """
SELECT k.secret_hash, k.id, k.tenant_id, k.account_id, k.mode, k.type, k.name, k.scopes, k.expires_at, k.per_minute, k.per_hour,
       a.name AS account_name, a.slug AS account_slug, a.timezone, c.stopped_at
FROM api_keys k
JOIN accounts a ON a.id = k.account_id
LEFT JOIN test_clocks c ON c.tenant_id = k.tenant_id
WHERE k.secret_hash = ANY ($1::bytea[])
"""
INSERT: Final = f"""
INSERT INTO api_keys
    (tenant_id, id, account_id, mode, type, name, scopes, prefix, secret_hash, expires_at, per_minute, per_hour, metadata)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
RETURNING {_COLUMNS}, pg_current_xact_id()::text AS tx
"""  # noqa: S608 - constants of this module
GET: Final = f"SELECT {_COLUMNS} FROM api_keys WHERE tenant_id = $1 AND id = $2"  # noqa: S608 - the same
LIST: Final = f"""
SELECT {_COLUMNS} FROM api_keys
WHERE tenant_id = $1 AND ($2::text IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3 OFFSET $4
"""  # noqa: S608 - the same
COUNT: Final = "SELECT count(*) FROM api_keys WHERE tenant_id = $1"
LOCK: Final = "SELECT version, mode FROM api_keys WHERE tenant_id = $1 AND id = $2 FOR UPDATE"
ROLL: Final = f"""
UPDATE api_keys SET secret_hash = $3, prefix = $4, version = version + 1, updated_at = now()
WHERE tenant_id = $1 AND id = $2
RETURNING {_COLUMNS}, pg_current_xact_id()::text AS tx
"""  # noqa: S608 - the same
DELETE: Final = "DELETE FROM api_keys WHERE tenant_id = $1 AND id = $2 RETURNING pg_current_xact_id()::text"
USED: Final = """
UPDATE api_keys k SET last_used_at = u.used_at
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u (tenant_id, id, used_at)
WHERE k.tenant_id = u.tenant_id AND k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.used_at)
"""


async def identities(conn: Queryable, hashes: Sequence[bytes]) -> list[asyncpg.Record]:
    """What is known of the keys whose secrets hash so; those that are not there are left out."""
    return await conn.fetch(IDENTITY, hashes)


async def insert(
    conn: Connection, tenant: str, key_id: str, account_id: str, key: NewKey, prefix: str, secret_hash: bytes
) -> asyncpg.Record:
    row = await conn.fetchrow(
        INSERT, tenant, key_id, account_id, key.mode, key.type, key.name, key.scopes, prefix, secret_hash, key.expires_at,
        key.limits.per_minute, key.limits.per_hour, key.metadata,
    )  # fmt: skip
    assert isinstance(row, asyncpg.Record)
    return row


async def get(conn: Queryable, tenant: str, key_id: str) -> asyncpg.Record | None:
    return await conn.fetchrow(GET, tenant, key_id)


async def page(
    pool: "asyncpg.Pool[Any]", tenant: str, after: str | None, take: int, offset: int
) -> list[asyncpg.Record]:
    """Keys, newest first: an id sorts by the time of its making."""
    return await pool.fetch(LIST, tenant, after, take, offset)


async def count(pool: "asyncpg.Pool[Any]", tenant: str) -> int:
    found: int = await pool.fetchval(COUNT, tenant)
    return found


async def lock(conn: Connection, tenant: str, key_id: str) -> asyncpg.Record | None:
    """Its version and mode, held until the transaction ends."""
    return await conn.fetchrow(LOCK, tenant, key_id)


async def roll(conn: Connection, tenant: str, key_id: str, secret_hash: bytes, prefix: str) -> asyncpg.Record:
    row = await conn.fetchrow(ROLL, tenant, key_id, secret_hash, prefix)
    assert isinstance(row, asyncpg.Record)
    return row


async def delete(conn: Connection, tenant: str, key_id: str) -> str | None:
    """Removes the key; gives the transaction's id, or None where there was no such key."""
    tx: str | None = await conn.fetchval(DELETE, tenant, key_id)
    return tx


async def used(pool: "asyncpg.Pool[Any]", uses: Sequence[tuple[str, str, datetime]]) -> None:
    """Writes when keys were last used: (tenant, key, when)."""
    await pool.execute(USED, [u[0] for u in uses], [u[1] for u in uses], [u[2] for u in uses])
