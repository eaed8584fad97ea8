"""Stored secrets put under the newest secret key; services go on meanwhile."""

from typing import Final

from kalends_calendar_sync import vault as calendars
from kalends_shared.db import Database
from kalends_shared.rewrapping import Rewrapped
from kalends_shared.rewrapping import rewrap as rewrap_table
from kalends_shared.seal import Keyring
from kalends_webhooks import vault as webhooks

TABLES: Final = {"webhooks": webhooks.SEALED, "calendar_sync": calendars.SEALED}


async def rewrap(url: str, service: str, keyring: Keyring) -> Rewrapped:
    """How many webhooks or calendars were put under the newest key, and those whose secrets do not open.

    Raises:
        asyncpg.PostgresError, OSError: the database cannot be reached; what was done stays done.
    """
    db = await Database.connect(url, service, size=1, name="rewrap")
    try:
        return await rewrap_table(db, keyring, TABLES[service])
    finally:
        await db.close()
