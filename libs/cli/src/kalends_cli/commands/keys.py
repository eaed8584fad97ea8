"""`kalends keys create`: an API key, by way of the public API; KALENDS_URL and KALENDS_API_KEY, else the local stack's."""

import argparse
import os

from kalends_cli.home import Home
from kalends_cli.problem import Problem


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key; its secret is shown this once")
    create.add_argument("name", help="what it is for")
    create.add_argument("--scope", action="append", choices=("read", "write", "admin"), help="default: read")
    create.add_argument("--mode", choices=("live", "test"), help="default: that of the key it is made with")


def run(arguments: argparse.Namespace) -> int:
    import httpx

    settings = {**Home(arguments.data_dir).env(), **os.environ}
    if "KALENDS_URL" not in settings or "KALENDS_API_KEY" not in settings:
        raise Problem("KALENDS_URL and KALENDS_API_KEY say where and as whom; `kalends up` makes both")
    body = {"name": arguments.name, "scopes": arguments.scope or ["read"]}
    if arguments.mode:
        body["mode"] = arguments.mode
    try:
        answer = httpx.post(
            f"{settings['KALENDS_URL'].rstrip('/')}/api/v1/api-keys",
            json=body,
            headers={"Authorization": f"Bearer {settings['KALENDS_API_KEY']}"},
            timeout=20,
        )
    except httpx.HTTPError as error:
        raise Problem(f"{settings['KALENDS_URL']} does not answer: {error}") from error
    if answer.status_code != httpx.codes.CREATED:
        raise Problem(f"the key was not made: {answer.status_code} {answer.text}")
    print(answer.json()["secret"])
    return 0
