"""The table accounts."""

from typing import Any, Final

from kalends_gateway.domain.keys import Limits
from kalends_shared.db import Connection

CEILING: Final = "SELECT ceiling_per_minute, ceiling_per_hour FROM accounts WHERE id = $1"
BY_SLUG: Final = "SELECT id FROM accounts WHERE slug = $1"
INSERT: Final = """
INSERT INTO accounts (id, name, slug, timezone) VALUES ($1, $2, $3, $4)
ON CONFLICT (slug) DO NOTHING
"""


async def ceiling(conn: Connection, account_id: str) -> Limits:
    """The most that a key of the account may be given."""
    row = await conn.fetchrow(CEILING, account_id)
    assert row is not None
    return Limits(row["ceiling_per_minute"], row["ceiling_per_hour"])


async def ensure(conn: Connection, account_id: str, name: str, slug: str, timezone: str) -> str:
    """The id of the account of that slug, made under the id given where there is none."""
    await conn.execute(INSERT, account_id, name, slug, timezone)
    found: Any = await conn.fetchval(BY_SLUG, slug)
    return str(found)
