"""API keys: made, read, listed, rolled, revoked."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from kalends_gateway.domain.keys import Limits, NewKey, admit, digest, new_secret, shown_prefix
from kalends_gateway.replicas import Replicas
from kalends_gateway.store import accounts, keys
from kalends_shared import lists
from kalends_shared.contracts.accounts import ApiKey, ApiKeyIn, RateLimits
from kalends_shared.contracts.call import Call, Reply, check_match, etag
from kalends_shared.contracts.decode import decode, query
from kalends_shared.contracts.endpoints import NoBody, PageQuery
from kalends_shared.contracts.errors import not_found
from kalends_shared.contracts.ids import new_id
from kalends_shared.db import Connection, Database
from kalends_shared.idempotency import idempotent


class KeyOrder(msgspec.Struct):
    """What a list of keys is sorted by."""

    id: str


class Keys:
    """The handlers of /api-keys."""

    def __init__(self, db: Database, replicas: Replicas, prefix: str) -> None:
        self._db, self._replicas, self._prefix = db, replicas, prefix

    async def create_api_key(self, call: Call) -> Reply:
        async def work(conn: Connection) -> Reply:
            maker = await keys.get(conn, call.tenant, call.actor.id or "")
            ceiling = await accounts.ceiling(conn, call.account_id)
            key = admit(
                decode(call.body, ApiKeyIn),
                call.mode,
                maker["type"] if maker else "account",
                call.scopes,
                ceiling,
                datetime.now(UTC),  # not the test clock's: a key opens by the time that it is
            )
            return await self._make(conn, call, key)

        return await idempotent(self._db, call, work)

    async def list_api_keys(self, call: Call) -> Reply:
        window = lists.window(query(call.query, PageQuery), KeyOrder)
        after = window.after.id if window.after is not None else None
        rows = await keys.page(self._db.pool, call.tenant, after, window.take, window.offset)
        total = await keys.count(self._db.pool, call.tenant) if window.numbered else None
        return Reply(
            body=lists.answer(
                window,
                rows,
                key=lambda row: KeyOrder(row["id"]),
                encode=lambda row: msgspec.json.encode(shown(row)),
                total=total,
            )
        )

    async def get_api_key(self, call: Call) -> Reply:
        row = await keys.get(self._db.pool, call.tenant, call.params["id"])
        if row is None:
            raise not_found("This API key")
        return Reply(body=shown(row), etag=etag(row["version"]))

    async def roll_api_key(self, call: Call) -> Reply:
        decode(call.body, NoBody)
        key_id = call.params["id"]

        async def work(conn: Connection) -> Reply:
            mode = await self._hold(conn, call, key_id)
            secret = new_secret(self._prefix, mode)
            row = await keys.roll(conn, call.tenant, key_id, digest(secret), shown_prefix(secret))
            return Reply(body=shown(row, secret), etag=etag(row["version"]), position=position(row["tx"]))

        reply = await idempotent(self._db, call, work)
        await self._replicas.forget(key_id=key_id)
        return reply

    async def delete_api_key(self, call: Call) -> Reply:
        key_id = call.params["id"]
        async with self._db.transaction() as conn:
            await self._hold(conn, call, key_id)
            tx = await keys.delete(conn, call.tenant, key_id)
        await self._replicas.forget(key_id=key_id)
        return Reply(status=204, position=position(tx or "0"))

    async def _make(self, conn: Connection, call: Call, key: NewKey) -> Reply:
        secret = new_secret(self._prefix, key.mode)
        tenant = f"{call.account_id}-{key.mode}"
        row = await keys.insert(conn, tenant, new_id("key"), call.account_id, key, shown_prefix(secret), digest(secret))
        return Reply(
            status=201,
            body=shown(row, secret),
            etag=etag(row["version"]),
            location=f"/api-keys/{row['id']}",
            position=position(row["tx"]),
        )

    async def _hold(self, conn: Connection, call: Call, key_id: str) -> str:
        """Locks the key and holds the call to its version; gives its mode."""
        row = await keys.lock(conn, call.tenant, key_id)
        if row is None:
            raise not_found("This API key")
        check_match(call, row["version"])
        return str(row["mode"])


def shown(row: "asyncpg.Record | dict[str, Any]", secret: str | None = None) -> ApiKey:
    """A stored key as its public form."""
    limits = Limits(row["per_minute"], row["per_hour"])
    unlimited = limits == Limits(None, None)
    return ApiKey(
        id=row["id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        version=row["version"],
        name=row["name"],
        scopes=row["scopes"],
        mode=row["mode"],
        type=row["type"],
        expires_at=row["expires_at"],
        rate_limits=None if unlimited else RateLimits(per_minute=limits.per_minute, per_hour=limits.per_hour),
        prefix=row["prefix"],
        last_used_at=row["last_used_at"],
        secret=secret,
        metadata=msgspec.Raw(row["metadata"]),
    )


def position(tx: str) -> str:
    """The gateway keeps no projections, so whatever reads by this place need not wait."""
    return f"gateway:{tx}.0"
