"""`kalends down`: ends what `up` started, and nothing else."""

import argparse

from kalends_cli import stack
from kalends_cli.home import Home


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=90, help="seconds until it is ended by force (default: 90)")


def run(arguments: argparse.Namespace) -> int:
    home = Home(arguments.data_dir)
    if not home.folder.exists():
        print("Nothing runs here.")
        return 0
    with home.alone():
        print("Ended." if stack.end(home, arguments.timeout) else "Nothing runs here.")
    return 0
