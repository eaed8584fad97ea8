"""`kalends migrate`: every service's schema, by KALENDS_DATABASE_DIRECT_URL, else KALENDS_DATABASE_URL."""

import argparse
import asyncio
import importlib
import os

from kalends_cli.plan import SERVICES
from kalends_cli.problem import Problem


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="default: all of them")


def run(arguments: argparse.Namespace) -> int:
    from kalends_shared.migrations import ChangedMigration, migrate

    names = [name.replace("-", "_") for name in arguments.services] or list(SERVICES)
    if unknown := set(names) - set(SERVICES):
        raise Problem(f"no service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    url = os.environ.get("KALENDS_DATABASE_DIRECT_URL") or os.environ.get("KALENDS_DATABASE_URL")
    if not url:
        raise Problem("KALENDS_DATABASE_URL says which database; `. .kalends/env` sets it to the local stack's")
    schemas = [importlib.import_module(f"kalends_{name}.schema").SCHEMA for name in names]
    try:
        applied = asyncio.run(migrate(url, schemas))
    except ChangedMigration as error:
        raise Problem(str(error)) from error
    for line in applied or ["Nothing to migrate."]:
        print(line)
    return 0
