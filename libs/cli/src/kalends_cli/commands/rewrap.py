"""`kalends rewrap`: webhook secrets and calendar passwords put under the first of KALENDS_SECRET_KEY.

Once it says that nothing is left, the other keys may go. It exits with 1 where a secret opens by none of them.
"""

import argparse
import asyncio
import sys

from kalends_cli.home import Home
from kalends_cli.installation import database_url, secret_keys
from kalends_cli.problem import Problem


def add(_parser: argparse.ArgumentParser) -> None:
    """It takes no arguments of its own."""


def run(arguments: argparse.Namespace) -> int:
    import asyncpg

    from kalends_cli.rewrap import TABLES, rewrap
    from kalends_shared.seal import Keyring, SealError

    home = Home(arguments.data_dir)
    url = database_url(home)
    try:
        keyring = Keyring.parse(secret_keys(home))
    except SealError as error:
        raise Problem(f"KALENDS_SECRET_KEY: {error}") from error
    unreadable = 0
    for service in TABLES:
        try:
            done = asyncio.run(rewrap(url, service, keyring))
        except (OSError, asyncpg.PostgresError) as error:
            raise Problem(f"{service}: {error}; run it again, what is done stays done") from error
        print(f"{service}: {done.changed} put under the newest key, {len(done.unreadable)} do not open", flush=True)
        for line in done.unreadable:
            print(f"  {line}", file=sys.stderr)
        unreadable += len(done.unreadable)
    return 1 if unreadable else 0
