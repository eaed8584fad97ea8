"""`kalends migrate`: every service's schema, in the database of KALENDS_DATABASE_DIRECT_URL or KALENDS_DATABASE_URL, else the local stack's."""

import argparse
import asyncio
import importlib

from kalends_cli.home import Home
from kalends_cli.installation import database_url
from kalends_cli.plan import SERVICES
from kalends_cli.problem import Problem


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="default: all of them")


def run(arguments: argparse.Namespace) -> int:
    from kalends_shared.migrations import ChangedMigration, migrate

    names = [name.replace("-", "_") for name in arguments.services] or list(SERVICES)
    if unknown := set(names) - set(SERVICES):
        raise Problem(f"no service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    url = database_url(Home(arguments.data_dir))
    schemas = [importlib.import_module(f"kalends_{name}.schema").SCHEMA for name in names]
    try:
        applied = asyncio.run(migrate(url, schemas))
    except ChangedMigration as error:
        raise Problem(str(error)) from error
    for line in applied or ["Nothing to migrate."]:
        print(line)
    return 0
