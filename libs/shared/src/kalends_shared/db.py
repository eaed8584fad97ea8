"""A service's way to its Postgres schema: a small pool, and direct connections for session locks.

Every connection takes the service's role and schema at start-up, so SQL never writes a schema name and no service can
read another's tables. The timeouts hold each transaction short, because one that stays open holds back every tail of
the event store (see `event_store.tail`).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import asyncpg.exceptions
from asyncpg.pool import PoolConnectionProxy

from kalends_shared import telemetry

Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
# For single statements: a transaction's connection, or a pool, of which each statement takes one and commits.
Queryable: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any] | asyncpg.Pool[Any]"

CONNECT_TIMEOUT: Final = 5.0
COMMAND_TIMEOUT: Final = 10.0
SETTINGS: Final[Mapping[str, str]] = {
    "TimeZone": "UTC",
    "transaction_timeout": "5s",
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "2s",
    "jit": "off",
    # A plan made while a table was small is kept by a session, and would go on to read all of it as it grows. Every
    # query here has an index that it is meant to take.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # One plan a statement, whatever its arguments: one made for them trusts statistics that a newer tenant is not in, and
    # takes any index on a tenant for as good as the one that is meant.
    "plan_cache_mode": "force_generic_plan",
}

# Classes of SQLSTATE that say nothing against the statement itself: connection, rollback for concurrency, resources,
# an object in use, an operator's doing, the system. 25P03 and 25P04 are the timeouts of a transaction.
_TRANSIENT_CLASSES: Final = frozenset({"08", "40", "53", "55", "57", "58"})
# 25006 is a server that was demoted to a replica.
_TRANSIENT_STATES: Final = frozenset({"25P03", "25P04", "25006"})


def role_of(schema: str) -> str:
    """The Postgres role that owns no table and may use this schema alone."""
    return f"kalends_{schema}"


def transient(error: BaseException) -> bool:
    """Tells whether the same work may succeed later: the connection, a lock or a timeout was at fault, not the work."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        # A migration has changed what a prepared statement reads: prepared again, it works.
        stale = isinstance(error, asyncpg.InvalidCachedStatementError)
        return stale or state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES
    # The last is what asyncpg says of a connection that was cut off in the middle of a statement.
    return isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError)


@contextmanager
def tolerant(event: str) -> Iterator[None]:
    """Logs a failure that is `transient`, under this name, and goes on; any other is raised."""
    try:
        yield
    except Exception as error:
        if not transient(error):
            raise
        telemetry.log(event, "warning", error=telemetry.brief(error))


async def _prepare(conn: Connection) -> None:
    # json columns hold documents byte for byte; binary format hands them over without a copy through str.
    await conn.set_type_codec("json", schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary")


async def _keep(_conn: Connection) -> None:
    """Stands in for the pool's RESET ALL, a round trip at every release: nothing here changes a session's settings."""


def _settings(schema: str, name: str) -> dict[str, str]:
    return {**SETTINGS, "role": role_of(schema), "search_path": schema, "application_name": f"kalends-{name}"}


async def direct(url: str, schema: str, name: str = "") -> "asyncpg.Connection[Any]":
    """Opens a connection outside the pool, for session locks; the caller closes it.

    `url` must lead to Postgres itself, not to a pooler.
    """
    conn = await asyncpg.connect(
        url, server_settings=_settings(schema, name or schema), timeout=CONNECT_TIMEOUT, command_timeout=COMMAND_TIMEOUT
    )
    try:
        await _prepare(conn)
    except BaseException:
        conn.terminate()
        raise
    return conn


class Database:
    """The pool of one service over its own schema.

    `pool` is for single statements, which commit by themselves; `transaction()` for several that stand or fall together.
    json columns are bytes both ways.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]", url: str, direct_url: str, schema: str) -> None:
        self.pool = pool
        self.url = url
        self.direct_url = direct_url
        self.schema = schema

    @classmethod
    async def connect(
        cls, url: str, schema: str, *, size: int = 5, direct_url: str | None = None, name: str = ""
    ) -> "Database":
        """Opens the pool with one connection made, so that a wrong address or role fails at once.

        `direct_url` is where session locks are taken, where `url` leads to a pooler. `name` tells processes apart in
        pg_stat_activity.
        """
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            init=_prepare,
            reset=_keep,
            server_settings=_settings(schema, name or schema),
            timeout=CONNECT_TIMEOUT,
            command_timeout=COMMAND_TIMEOUT,
            max_inactive_connection_lifetime=300,
        )
        return cls(pool, url, direct_url or url, schema)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One READ COMMITTED transaction; an exception rolls it back."""
        async with self.pool.acquire(timeout=COMMAND_TIMEOUT) as conn, conn.transaction():
            yield conn

    async def direct(self, name: str = "") -> "asyncpg.Connection[Any]":
        """A connection for session locks; see `direct`."""
        return await direct(self.direct_url, self.schema, name)

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109  # asyncpg's pool has none of its own
        """Waits for what is in use, at most `timeout` seconds, then cuts it off."""
        try:
            async with asyncio.timeout(timeout):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()
