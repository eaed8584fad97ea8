"""`kalends COMMAND`, or `python -m kalends_cli COMMAND`. A module of `commands` has `add` and `run`, nothing else."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from kalends_cli.commands import COMMANDS
from kalends_cli.problem import Problem


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = importlib.import_module(f"kalends_cli.commands.{arguments.command}").run(arguments)
    except Problem as problem:
        print(f"kalends: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `kalends logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalends", description="Runs and looks after a Kalends installation.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        subparser.add_argument(
            "--data-dir",
            type=Path,
            default=Path(os.environ.get("KALENDS_HOME", ".kalends")),
            help="the stack's folder (default: KALENDS_HOME, else .kalends)",
        )
        importlib.import_module(f"kalends_cli.commands.{name}").add(subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
