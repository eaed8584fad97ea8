"""`kalends rebuild [--check] [SERVICE ...]`: read models out of the events again, and those put right that differ.

It exits with 1 where `--check`, which changes nothing, has found a difference. Webhooks and calendar-sync have none: what
they have told others is not made again.
"""

import argparse
import asyncio
from typing import Final

from kalends_cli.home import Home
from kalends_cli.installation import database_url
from kalends_cli.problem import Problem

REBUILT: Final = ("booking", "availability")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "services", nargs="*", metavar="SERVICE", help=f"{' or '.join(REBUILT)} (default: both, in this order)"
    )
    parser.add_argument("--check", action="store_true", help="only tell what differs")


def run(arguments: argparse.Namespace) -> int:
    import asyncpg

    from kalends_cli import rebuild

    if unknown := set(arguments.services) - set(REBUILT):
        raise Problem(f"no read models of {', '.join(sorted(unknown))}; there are {', '.join(REBUILT)}")
    url = database_url(Home(arguments.data_dir))
    differ = 0
    for service in arguments.services or REBUILT:
        make_again = {"booking": rebuild.booking, "availability": rebuild.availability}[service]
        try:
            found = asyncio.run(make_again(url, write=not arguments.check))
        except (OSError, asyncpg.PostgresError) as error:
            raise Problem(f"{service} cannot be rebuilt, and is as it was: {error}") from error
        for what, count in found.items():
            print(f"{service}: {what}: {count} {'differ' if arguments.check else 'put right'}", flush=True)
        differ += sum(found.values())
    return 1 if arguments.check and differ else 0
