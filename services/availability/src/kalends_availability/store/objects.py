"""Table `objects` and who refers to whom (`refs`)."""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from kalends_shared.db import Queryable

Conn: TypeAlias = Queryable

INSERT: Final = """
INSERT INTO objects (tenant_id, id, kind, version, slug, body, aside) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
UPDATE: Final = """
UPDATE objects SET version = $3, slug = $4, body = $5, aside = $6 WHERE tenant_id = $1 AND id = $2
"""
DELETE: Final = "DELETE FROM objects WHERE tenant_id = $1 AND id = $2"
ONE: Final = "SELECT id, kind, seq, version, body, aside FROM objects WHERE tenant_id = $1 AND kind = $2 AND id = $3"
PAGE: Final = """
SELECT id, kind, seq, version, body, aside FROM objects
WHERE tenant_id = $1 AND kind = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4 OFFSET $5
"""
COUNT: Final = "SELECT count(*) FROM objects WHERE tenant_id = $1 AND kind = $2"
KINDS: Final = "SELECT id, kind FROM objects WHERE tenant_id = $1 AND id = ANY ($2)"
SLUGS: Final = """
SELECT slug FROM objects WHERE tenant_id = $1 AND (slug = $2 OR slug LIKE $3) AND id <> $4
"""
REFER: Final = "INSERT INTO refs (tenant_id, from_id, target_id) SELECT $1, $2, unnest($3::text[])"
FORGET: Final = "DELETE FROM refs WHERE tenant_id = $1 AND from_id = $2"
REFERRED: Final = "SELECT from_id FROM refs WHERE tenant_id = $1 AND target_id = $2 LIMIT 1"
# An event type, all that it names, and the schedules of its hosts, of one moment.
FAMILY: Final = """
SELECT o.id, o.kind, o.seq, o.version, o.body, o.aside FROM objects o
WHERE o.tenant_id = $1 AND o.id IN (
    SELECT $2::text
    UNION SELECT r.target_id FROM refs r WHERE r.tenant_id = $1 AND r.from_id = $2
    UNION SELECT s.target_id FROM refs r JOIN refs s ON s.tenant_id = r.tenant_id AND s.from_id = r.target_id
        WHERE r.tenant_id = $1 AND r.from_id = $2
)
"""
# Of no tenant in particular: whether this process will need what is costly to load.
HOLIDAYS: Final = """
SELECT id FROM objects WHERE kind = 'schedule' AND json_typeof(body -> 'holidays') = 'object' LIMIT 1
"""
NEWEST: Final = 2**62


class Row(NamedTuple):
    """An object as it is; `body` is its public answer."""

    id: str
    kind: str
    seq: int
    version: int
    body: bytes
    aside: bytes | None


async def insert(
    conn: Conn, tenant: str, id_: str, kind: str, version: int, slug: str | None, body: bytes, aside: bytes | None
) -> None:
    await conn.execute(INSERT, tenant, id_, kind, version, slug, body, aside)


async def update(
    conn: Conn, tenant: str, id_: str, version: int, slug: str | None, body: bytes, aside: bytes | None
) -> None:
    await conn.execute(UPDATE, tenant, id_, version, slug, body, aside)


async def delete(conn: Conn, tenant: str, id_: str) -> None:
    await conn.execute(FORGET, tenant, id_)
    await conn.execute(DELETE, tenant, id_)


async def one(conn: Conn, tenant: str, kind: str, id_: str) -> Row | None:
    row = await conn.fetchrow(ONE, tenant, kind, id_)
    return None if row is None else Row(*row)


async def page(conn: Conn, tenant: str, kind: str, before: int | None, limit: int, offset: int) -> list[Row]:
    """Objects of a kind, newest first."""
    rows = await conn.fetch(PAGE, tenant, kind, NEWEST if before is None else before, limit, offset)
    return [Row(*row) for row in rows]


async def count(conn: Conn, tenant: str, kind: str) -> int:
    found: int = await conn.fetchval(COUNT, tenant, kind)
    return found


async def kinds(conn: Conn, tenant: str, ids: Sequence[str]) -> dict[str, str]:
    """Which of the ids there are, and of what kind."""
    return {row["id"]: row["kind"] for row in await conn.fetch(KINDS, tenant, list(ids))}


async def slugs_like(conn: Conn, tenant: str, slug: str, besides: str) -> set[str]:
    """The slugs in use by others that are this one, or this one with something behind a hyphen."""
    return {row["slug"] for row in await conn.fetch(SLUGS, tenant, slug, f"{slug}-%", besides)}


async def refer(conn: Conn, tenant: str, id_: str, targets: Sequence[str]) -> None:
    """Says anew whom an object names."""
    await conn.execute(FORGET, tenant, id_)
    if targets:
        await conn.execute(REFER, tenant, id_, sorted(set(targets)))


async def referred(conn: Conn, tenant: str, id_: str) -> str | None:
    """One of the objects that name this one."""
    found: str | None = await conn.fetchval(REFERRED, tenant, id_)
    return found


async def family(conn: Conn, tenant: str, event_type_id: str) -> list[Row]:
    return [Row(*row) for row in await conn.fetch(FAMILY, tenant, event_type_id)]


async def holidays(conn: Conn) -> bool:
    """Whether any schedule has public holidays."""
    return bool(await conn.fetch(HOLIDAYS))
