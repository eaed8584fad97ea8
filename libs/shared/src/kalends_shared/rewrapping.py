"""A service's sealed secrets put under the newest secret key while it runs, so that older keys can be let go."""

from collections.abc import Callable
from typing import Final, NamedTuple

from asyncpg import Record

from kalends_shared.db import Connection, Database
from kalends_shared.seal import Keyring, SealError

PAGE: Final = 100


class Sealed(NamedTuple):
    """The table in which a service keeps secrets, each row with an array of them, `secrets`, which may hold nulls.

    `page` locks and reads, of all tenants, the $3 rows after (tenant_id, id) = ($1, $2), in this order. `put` writes the
    array $3 into the row ($1, $2). `belongs_to` is what the secrets of a row are bound to.
    """

    page: str
    put: str
    belongs_to: Callable[[Record], str]


class Rewrapped(NamedTuple):
    """How many rows were put under the newest key, and what is wrong with those that do not open."""

    changed: int
    unreadable: list[str]


async def rewrap(db: Database, keyring: Keyring, table: Sealed) -> Rewrapped:
    """Each page is a transaction, and what is under the newest key already is left as it is: so it may be run again."""
    changed, unreadable, after = 0, list[str](), ("", "")
    while True:
        async with db.transaction() as conn:
            rows = await conn.fetch(table.page, *after, PAGE)
            for row in rows:
                try:
                    changed += await _row(conn, keyring, table, row)
                except SealError as error:
                    unreadable.append(f"{row['id']} of {row['tenant_id']}: {error}")
        if not rows:
            return Rewrapped(changed, unreadable)
        after = (rows[-1]["tenant_id"], rows[-1]["id"])


async def _row(conn: Connection, keyring: Keyring, table: Sealed, row: Record) -> bool:
    """Tells whether the row was changed.

    Raises:
        SealError: a secret is sealed by a key that is not at hand, or is not the row's.
    """
    record = table.belongs_to(row)
    secrets = [None if secret is None else keyring.rewrap(secret, record) for secret in row["secrets"]]
    if secrets == row["secrets"]:
        return False
    await conn.execute(table.put, row["tenant_id"], row["id"], secrets)
    return True
