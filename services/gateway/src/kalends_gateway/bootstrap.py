"""The first account of an installation and a key to begin with, by `python -m kalends_gateway bootstrap`.

Prints {"account_id", "api_key"}. Run again it makes no second account, and keeps the key that it is given where that
opens the account still. The key has the admin scope and no rate limit, which no other way gives.
"""

import msgspec

from kalends_gateway.domain.keys import Limits, NewKey, digest, new_secret, shown_prefix
from kalends_gateway.settings import BootstrapSettings
from kalends_gateway.store import accounts, keys
from kalends_shared.contracts.ids import new_id
from kalends_shared.db import Connection, Database


class Made(msgspec.Struct):
    """The account and a key of it."""

    account_id: str
    api_key: str


async def bootstrap(db: Database, settings: BootstrapSettings) -> Made:
    """Ensures the account, and a key that opens it."""
    async with db.transaction() as conn:
        account_id = await accounts.ensure(
            conn, new_id("acc"), settings.account_name, settings.account_slug, settings.account_timezone
        )
        given = settings.bootstrap_key or settings.api_key
        if given is not None and await _opens(conn, given, account_id):
            return Made(account_id, given)
        secret = new_secret(settings.key_prefix, "live")
        key = NewKey("Bootstrap", ["admin"], "live", "account", None, Limits(None, None), b"{}")
        await keys.insert(
            conn, f"{account_id}-live", new_id("key"), account_id, key, shown_prefix(secret), digest(secret)
        )
        return Made(account_id, secret)


async def _opens(conn: Connection, secret: str, account_id: str) -> bool:
    found = await keys.identities(conn, [digest(secret)])
    return any(
        row["account_id"] == account_id and "admin" in row["scopes"] and row["expires_at"] is None for row in found
    )
