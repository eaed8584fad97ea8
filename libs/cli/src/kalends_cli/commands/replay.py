"""`kalends replay SOURCE ...`: has the last days' events published again, out of PostgreSQL, while the services run.

What reads the streams beside Kalends' own services, which skip what they have applied, then sees them all once more.
"""

import argparse
import asyncio

from kalends_cli.commands.tail import SOURCES
from kalends_cli.home import Home
from kalends_cli.installation import database_url, nats_url
from kalends_cli.problem import Problem


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", choices=SOURCES, metavar="SOURCE", help=", ".join(SOURCES))
    parser.add_argument("--timeout", type=float, default=120, help="seconds to wait for each relay (default: 120)")


def run(arguments: argparse.Namespace) -> int:
    import asyncpg

    from kalends_cli import replay

    home = Home(arguments.data_dir)
    url, bus = database_url(home), nats_url(home)
    for source in arguments.sources:
        try:
            asyncio.run(replay.replay(url, bus, source, arguments.timeout))
        except (OSError, asyncpg.PostgresError) as error:
            raise Problem(f"the database cannot be read: {error}") from error
        print(f"{source} is published again.", flush=True)
    return 0
