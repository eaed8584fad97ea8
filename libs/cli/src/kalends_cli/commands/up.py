"""`kalends up`: servers, migrations, services, and the account and key by which to use them."""

import argparse
import os

from kalends_cli import stack
from kalends_cli.demo_account import DemoAccount
from kalends_cli.home import Home
from kalends_cli.plan import SERVICES, standard
from kalends_cli.problem import Problem


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replicas",
        action="append",
        default=[],
        metavar="N|SERVICE=N",
        help="processes of every service, or of one; may be repeated",
    )
    parser.add_argument("--timeout", type=float, default=120, help="seconds until it gives up (default: 120)")


def run(arguments: argparse.Namespace) -> int:
    home = Home(arguments.data_dir)
    replicas = parse_replicas(arguments.replicas)
    with home.alone():
        if home.supervisor_pid() is None:
            stack.start(home, standard(home, os.environ, replicas))
        elif replicas and replicas != stack.replicas(home):
            raise Problem("a stack with other replicas is running here; `kalends down` ends it")
        else:
            stack.console.print("A stack is running here already.")
        account = DemoAccount(home)
        stack.follow(home, arguments.timeout, account.begin)
        stack.hand_over(home, account)
    return 0


def parse_replicas(given: list[str]) -> dict[str, int]:
    """`["2", "booking=3"]` -> two of each service, three of booking."""
    replicas: dict[str, int] = {}
    for text in given:
        service, _, number = text.rpartition("=")
        names = (service.replace("-", "_"),) if service else SERVICES
        if not number.isdigit() or int(number) < 1 or not set(names) <= set(SERVICES):
            raise Problem(f"--replicas {text}: a number, or SERVICE=NUMBER with one of {', '.join(SERVICES)}")
        replicas |= dict.fromkeys(names, int(number))
    return replicas
