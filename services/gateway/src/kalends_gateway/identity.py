"""Who asks: API keys as each gateway remembers them.

What is remembered of a key holds for its lease, a second, from the moment the database was asked, and keys in use are asked after
in the background, all in one query, so that a request waits for the database only where a key is new. A revoked or
rolled key is forgotten at once by message (see replicas); the lease is what holds where a message is lost.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import asyncpg
from msgspec import Struct
from prometheus_client import Counter, Gauge

from kalends_gateway.domain.keys import Limits, digest
from kalends_gateway.domain.scopes import expand
from kalends_gateway.store import keys
from kalends_shared.contracts.accounts import Mode
from kalends_shared.contracts.events import Actor
from kalends_shared.service import wait

REFRESH_SECONDS: Final = 0.4
IDLE_SECONDS: Final = 10.0  # unused for so long a key is no longer asked after
LONGEST_SECRET: Final = 200
MOST_LOADS: Final = 3  # at once: a flood of wrong keys leaves connections to those that are asked after

LOOKUPS: Final = Counter(
    "kalends_gateway_key_lookups_total", "Times a request waited for the database to know its key."
)
REMEMBERED: Final = Gauge("kalends_gateway_keys_remembered", "Keys in use at this gateway.")


class Identity(Struct, frozen=True):
    """A key and the account and mode behind it. `scopes` are expanded."""

    key_id: str
    tenant: str
    account_id: str
    account_name: str
    account_slug: str
    timezone: str
    mode: Mode
    type: str
    scopes: frozenset[str]
    actor: Actor
    limits: Limits | None
    expires_at: datetime | None
    stopped_at: datetime | None

    @classmethod
    def of(cls, row: asyncpg.Record) -> "Identity":
        limited = row["per_minute"] is not None or row["per_hour"] is not None
        return cls(
            key_id=row["id"],
            tenant=row["tenant_id"],
            account_id=row["account_id"],
            account_name=row["account_name"],
            account_slug=row["account_slug"],
            timezone=row["timezone"],
            mode=row["mode"],
            type=row["type"],
            scopes=expand(row["scopes"]),
            actor=Actor("key", row["id"], row["name"]),
            limits=Limits(row["per_minute"], row["per_hour"]) if limited else None,
            expires_at=row["expires_at"],
            stopped_at=row["stopped_at"],
        )


class _Entry:
    """An identity, until when it holds, and when it was last asked for, in the loop's time."""

    __slots__ = ("identity", "until", "used")

    def __init__(self, identity: Identity, until: float, used: float) -> None:
        self.identity, self.until, self.used = identity, until, used


class Identities:
    """The keys that this gateway remembers."""

    def __init__(
        self, pool: "asyncpg.Pool[Any]", lease: float, may_remember: Callable[[], bool] = lambda: True
    ) -> None:
        """`lease` is for how many seconds what was read holds.

        `may_remember` tells whether this gateway would hear of a revocation; while it would not, every request asks.
        """
        self._pool, self._lease = pool, lease
        self._may_remember = may_remember
        self._entries: dict[bytes, _Entry] = {}
        self._loading: dict[bytes, asyncio.Future[Identity | None]] = {}
        self._forgotten = 0  # how often anything was forgotten: what was asked for before that is asked again
        self._turn = asyncio.Semaphore(MOST_LOADS)
        self._time = asyncio.get_running_loop().time

    async def find(self, secret: str) -> Identity | None:
        """Whose secret it is; None where it is nobody's.

        Raises:
            asyncpg.PostgresError, OSError: the database is away.
        """
        if len(secret) > LONGEST_SECRET:
            return None
        hashed = digest(secret)
        now = self._time()
        entry = self._entries.get(hashed)
        if entry is not None and entry.until > now and self._may_remember():
            entry.used = now
            return entry.identity
        loading = self._loading.get(hashed)
        if loading is None:
            loading = self._loading[hashed] = asyncio.ensure_future(self._load(hashed))
            loading.add_done_callback(lambda _: self._loading.pop(hashed, None))
        return await asyncio.shield(loading)

    def forget(self, *, key_id: str | None = None, tenant: str | None = None) -> None:
        """Forgets a key, or all of a tenant."""
        self._forgotten += 1
        for hashed, entry in list(self._entries.items()):
            if entry.identity.key_id == key_id or entry.identity.tenant == tenant:
                del self._entries[hashed]

    async def refresh(self, stop: asyncio.Event) -> None:
        """Asks after the keys in use, until `stop`; drops those that are not."""
        while not await wait(stop, REFRESH_SECONDS):
            idle = self._time() - IDLE_SECONDS
            for hashed, entry in list(self._entries.items()):
                if entry.used < idle:
                    del self._entries[hashed]
            REMEMBERED.set(len(self._entries))
            if self._entries:
                await self._read(list(self._entries))

    async def _load(self, hashed: bytes) -> Identity | None:
        LOOKUPS.inc()
        while True:
            async with self._turn:
                began = self._time()
                found = await self._read([hashed])
            # Read so slowly that it holds no more, or overtaken by a revocation: it is asked again.
            if found is not None and self._time() < began + self._lease:
                return found.get(hashed)

    async def _read(self, hashes: list[bytes]) -> dict[bytes, Identity] | None:
        """Reads these keys and remembers them; None where something was forgotten meanwhile."""
        began, forgotten = self._time(), self._forgotten
        rows = await keys.identities(self._pool, hashes)
        if forgotten != self._forgotten:
            return None
        found = {row["secret_hash"]: Identity.of(row) for row in rows}
        self._remember(hashes, found, began)
        return found

    def _remember(self, hashes: Iterable[bytes], found: dict[bytes, Identity], began: float) -> None:
        for hashed in hashes:
            identity, entry = found.get(hashed), self._entries.get(hashed)
            if identity is None:
                self._entries.pop(hashed, None)
            elif entry is None:
                self._entries[hashed] = _Entry(identity, began + self._lease, self._time())
            else:
                entry.identity, entry.until = identity, began + self._lease
