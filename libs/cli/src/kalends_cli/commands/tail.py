"""`kalends tail`: what happens, as a JSON line an event, until it is interrupted; no line holds personal data."""

import argparse
import asyncio
import sys
from datetime import timedelta
from typing import Final

from kalends_cli.home import Home
from kalends_cli.installation import database_url
from kalends_cli.problem import Problem

SOURCES: Final = ("availability", "booking", "calendar")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", action="append", choices=SOURCES, help="only events of this one; may be repeated")
    parser.add_argument("--tenant", help="only events of this tenant, acc_...-live or acc_...-test")
    parser.add_argument("--stream", help="only events of this stream, such as bkg_...")
    parser.add_argument("--type", action="append", help="only events of this type; may be repeated")
    parser.add_argument("--since", type=float, metavar="MINUTES", help="begin so long ago (default: now)")
    parser.add_argument("--once", action="store_true", help="end where nothing more has happened yet")


def run(arguments: argparse.Namespace) -> int:
    import asyncpg

    url = database_url(Home(arguments.data_dir))
    try:
        asyncio.run(_show(url, arguments))
    except (OSError, asyncpg.PostgresError) as error:
        if isinstance(error, BrokenPipeError):
            raise  # whoever read the lines has seen enough
        raise Problem(f"the events cannot be read: {error}") from error
    return 0


async def _show(url: str, arguments: argparse.Namespace) -> None:
    import msgspec

    from kalends_cli import tail

    since = None if arguments.since is None else timedelta(minutes=arguments.since)
    async for line in tail.lines(url, arguments.source or SOURCES, since, follow=not arguments.once):
        wanted = (
            arguments.tenant in {None, line.tenant_id}
            and arguments.stream in {None, line.stream_id}
            and (not arguments.type or line.type in arguments.type)
        )
        if wanted:
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
            sys.stdout.flush()
