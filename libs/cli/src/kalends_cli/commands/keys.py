"""`kalends keys create`: an API key, by way of the public API; KALENDS_URL and KALENDS_API_KEY, else the local stack's."""

import argparse
from typing import get_args

from kalends_cli.home import Home
from kalends_cli.installation import api
from kalends_cli.problem import Problem
from kalends_shared.contracts.accounts import Scope


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key; its secret is shown this once")
    create.add_argument("name", help="what it is for")
    create.add_argument("--scope", action="append", choices=get_args(Scope), help="default: read; may be repeated")
    create.add_argument("--mode", choices=("live", "test"), help="default: that of the key it is made with")


def run(arguments: argparse.Namespace) -> int:
    import httpx

    base, key = api(Home(arguments.data_dir))
    body = {"name": arguments.name, "scopes": arguments.scope or ["read"]}
    if arguments.mode:
        body["mode"] = arguments.mode
    try:
        answer = httpx.post(
            f"{base}/api-keys",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            timeout=20,
        )
    except httpx.HTTPError as error:
        raise Problem(f"{base} does not answer: {error}") from error
    if answer.status_code != httpx.codes.CREATED:
        raise Problem(f"the key was not made: {answer.status_code} {answer.text}")
    print(answer.json()["secret"])
    return 0
