"""Which installation a command is about: the one that the environment names, else the local stack of the folder."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kalends_cli.home import Home
from kalends_cli.problem import Problem

if TYPE_CHECKING:
    import asyncpg


def database_url(home: Home) -> str:
    """KALENDS_DATABASE_DIRECT_URL, else KALENDS_DATABASE_URL: commands take session locks, which no pooler bears.

    Raises:
        Problem: neither is set.
    """
    url = _setting(home, "KALENDS_DATABASE_DIRECT_URL") or _setting(home, "KALENDS_DATABASE_URL")
    if not url:
        raise Problem("KALENDS_DATABASE_URL says which database; `kalends up` makes a local one")
    return url


def nats_url(home: Home) -> str:
    """KALENDS_NATS_URL.

    Raises:
        Problem: it is not set.
    """
    url = _setting(home, "KALENDS_NATS_URL")
    if not url:
        raise Problem("KALENDS_NATS_URL says where the streams are; `kalends up` makes a local server")
    return url


def secret_keys(home: Home) -> str:
    """KALENDS_SECRET_KEY, else the key of the local stack.

    Raises:
        Problem: it is not set.
    """
    text = _setting(home, "KALENDS_SECRET_KEY")
    if text:
        return text
    if home.env():
        return home.secret_key().read_text(encoding="utf-8")
    raise Problem("KALENDS_SECRET_KEY says by which keys secrets are sealed, the newest first")


def api(home: Home) -> tuple[str, str]:
    """The address of the public API's root, and a key: KALENDS_URL and KALENDS_API_KEY.

    Raises:
        Problem: one of them is not set, or no key can be so.
    """
    url, key = _setting(home, "KALENDS_URL"), _setting(home, "KALENDS_API_KEY")
    if not url or not key:
        raise Problem("KALENDS_URL and KALENDS_API_KEY say where and as whom; `kalends up` makes both")
    if not (key.isascii() and key.isprintable()):
        raise Problem("KALENDS_API_KEY holds characters that no key has")
    return url.rstrip("/") + "/api/v1", key


@asynccontextmanager
async def schema(url: str, service: str, command: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A connection to a service's schema, as its role, for a command.

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached, or not as that role.
    """
    from kalends_shared import db

    conn = await db.direct(url, service, command)
    try:
        yield conn
    finally:
        await conn.close()


def _setting(home: Home, name: str) -> str | None:
    from kalends_shared.settings import read

    try:
        return read(name, {**home.env(), **os.environ})
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{name}_FILE cannot be read: {error}") from error
