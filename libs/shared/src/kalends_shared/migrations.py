"""Forward-only SQL migrations: shared parts first, then the service's own, each file once, in the order of their names.

A file runs in a transaction of its own under lock and statement timeouts. One whose first line is
`-- kalends: no-transaction` runs statement by statement outside any, for CREATE INDEX CONCURRENTLY; it must bear being
run again after an interruption. A file that has been applied is never edited: its checksum is kept.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import asyncpg
from msgspec import Struct

from kalends_shared.db import CONNECT_TIMEOUT, Connection, role_of

NO_TRANSACTION: Final = "-- kalends: no-transaction"
LOCK_TIMEOUT: Final = "2s"
STATEMENT_TIMEOUT: Final = "60s"
ATTEMPTS: Final = 5
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_FILE: Final = re.compile(r"[0-9]{4}_[a-z0-9_]+\.sql")

CREATE_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    part text NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (part, name)
)
"""
SELECT_APPLIED: Final = "SELECT part, name, checksum FROM schema_migrations"
INSERT_APPLIED: Final = "INSERT INTO schema_migrations (part, name, checksum) VALUES ($1, $2, $3)"


class Schema(Struct, frozen=True, kw_only=True):
    """What a service's schema is made of: shared `parts` (folders of kalends_shared/sql) and its own `package`'s migrations."""

    name: str
    parts: tuple[str, ...] = ()
    package: str | None = None


class Migration(Struct, frozen=True):
    part: str
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        return not self.sql.startswith(NO_TRANSACTION)


class PendingMigrations(Exception):  # noqa: N818  # it names the state of the schema
    """The schema is older than this code needs; `kalends migrate` brings it up."""


class ChangedMigration(Exception):  # noqa: N818  # the same
    """A migration that has been applied reads differently now."""


def required(schema: Schema) -> list[Migration]:
    """Every migration this code needs, in the order they are applied."""
    parts: list[tuple[str, Traversable]] = [(part, files("kalends_shared") / "sql" / part) for part in schema.parts]
    if schema.package is not None:
        parts.append((schema.package, files(schema.package) / "migrations"))
    found = []
    for part, folder in parts:
        entries = sorted(
            (entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name
        )
        for entry in entries:
            if not _FILE.fullmatch(entry.name):
                raise ValueError(f"{part}/{entry.name} is not named NNNN_what.sql")
            found.append(Migration(part, entry.name, entry.read_text(encoding="utf-8")))
    return found


async def check(conn: Connection, schema: Schema) -> None:
    """Holds the schema to what this code needs; a newer one passes, since its migrations only add.

    `conn` is the service's own connection, its search path the schema.

    Raises:
        PendingMigrations: with their names.
    """
    try:
        applied = {(row["part"], row["name"]) for row in await conn.fetch(SELECT_APPLIED)}
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
        raise PendingMigrations(f"Schema {schema.name} has not been migrated: run `kalends migrate`.") from error
    missing = [f"{m.part}/{m.name}" for m in required(schema) if (m.part, m.name) not in applied]
    if missing:
        raise PendingMigrations(f"Schema {schema.name} lacks {', '.join(missing)}: run `kalends migrate`.")


async def migrate(url: str, schemas: Sequence[Schema]) -> list[str]:
    """Brings the schemas up, making those and the roles that are not there; returns the names of what was applied.

    `url` leads to Postgres itself (not to a pooler), as a user that may create schemas and roles. Two runs at once are
    safe: the second waits for the first.

    Raises:
        ChangedMigration: before anything of that schema is applied.
    """
    applied: list[str] = []
    for schema in schemas:
        if not _NAME.fullmatch(schema.name):
            raise ValueError(f"{schema.name!r} is no name for a schema")
        conn = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT, server_settings={"application_name": "kalends-migrate", "TimeZone": "UTC"}
        )
        try:
            async with _alone(conn, schema.name):
                applied += await _migrate(conn, schema)
        finally:
            await conn.close()
    return applied


@asynccontextmanager
async def _alone(conn: "asyncpg.Connection[Any]", name: str) -> AsyncIterator[None]:
    # Polled: a blocking wait holds a snapshot, for which another run's CREATE INDEX CONCURRENTLY would wait in turn.
    while not await conn.fetchval("SELECT pg_try_advisory_lock(hashtext('kalends.migrations'), hashtext($1))", name):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    try:
        yield
    finally:
        await conn.execute("SELECT pg_advisory_unlock(hashtext('kalends.migrations'), hashtext($1))", name)


async def _migrate(conn: "asyncpg.Connection[Any]", schema: Schema) -> list[str]:
    role = role_of(schema.name)
    await _create_role(conn, role)
    # Looked at first, because IF NOT EXISTS asks for the right to create also where there is nothing to create.
    if not await conn.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema.name):
        await conn.execute(f"CREATE SCHEMA {schema.name}")
    await conn.execute(f"SET search_path TO {schema.name}")
    await conn.execute(CREATE_TABLE)
    known = {(row["part"], row["name"]): row["checksum"] for row in await conn.fetch(SELECT_APPLIED)}
    pending = []
    for migration in required(schema):
        checksum = known.get((migration.part, migration.name))
        if checksum is None:
            pending.append(migration)
        elif checksum != migration.checksum:
            raise ChangedMigration(
                f"{migration.part}/{migration.name} was changed after it was applied to {schema.name}."
            )
    for migration in pending:
        await _apply(conn, migration)
    if pending or not known:
        await _grant(conn, schema, role)
    return [f"{schema.name}: {migration.part}/{migration.name}" for migration in pending]


async def _apply(conn: "asyncpg.Connection[Any]", migration: Migration) -> None:
    """Applies one file; a lock that cannot be had in time is tried for again, since traffic goes on meanwhile."""
    for attempt in range(ATTEMPTS):
        try:
            if migration.transactional:
                async with conn.transaction():
                    await conn.execute(
                        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"
                    )
                    await conn.execute(migration.sql)
                    await conn.execute(INSERT_APPLIED, migration.part, migration.name, migration.checksum)
            else:
                for statement in filter(str.strip, re.split(r";[ \t]*(?:\n|$)", migration.sql)):
                    await conn.execute(statement)
                await conn.execute(INSERT_APPLIED, migration.part, migration.name, migration.checksum)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(0.2 * 2**attempt)


async def _create_role(conn: "asyncpg.Connection[Any]", role: str) -> None:
    """Makes the role, and lets this user act as it. Roles belong to the whole server, so other databases' runs race."""
    statements = []
    if not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        statements.append(f"CREATE ROLE {role} NOLOGIN")
    if not await conn.fetchval("SELECT pg_has_role(current_user, oid, 'SET') FROM pg_roles WHERE rolname = $1", role):
        statements.append(f"GRANT {role} TO CURRENT_USER")
    for statement in statements:
        for attempt in range(ATTEMPTS):
            try:
                await conn.execute(statement)
                break
            except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
                break
            except asyncpg.InternalServerError:  # "tuple concurrently updated"
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.05 * 2**attempt)


async def _grant(conn: "asyncpg.Connection[Any]", schema: Schema, role: str) -> None:
    """The service may read and write its rows, but own, alter or truncate nothing; events it may only add to."""
    async with conn.transaction():
        await conn.execute(f"GRANT USAGE ON SCHEMA {schema.name} TO {role}")
        await conn.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema.name} TO {role}")
        await conn.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema.name} TO {role}")
        await conn.execute(f"REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM {role}")
        if "event_store" in schema.parts:
            await conn.execute(f"REVOKE UPDATE, DELETE ON events FROM {role}")
            await conn.execute(f"REVOKE INSERT, UPDATE, DELETE ON epoch FROM {role}")
