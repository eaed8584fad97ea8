"""`kalends listen --forward-to URL`: an account's events, as they happen, to a receiver without a public address.

It reads `GET /changes` as server-sent events and posts each to the receiver, signed as a webhook of the default profile
is, by a secret of its own. It begins with what is to come, and after a lost connection where it had got to.
"""

import argparse
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kalends_cli import installation
from kalends_cli.home import Home
from kalends_cli.problem import Problem

PAUSES: Final = (1.0, 5.0)  # seconds before each further try
RECONNECT_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 60.0  # the gateway says every ten that it lives
_wait: Final = threading.Event().wait  # nobody sets it


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--forward-to", required=True, metavar="URL", help="the receiver, http://localhost:3000/hooks say"
    )
    parser.add_argument("--event", action="append", metavar="TYPE", help="only events of this type; may be repeated")
    parser.add_argument("--secret", help="what to sign with (default: one is made and printed)")
    parser.add_argument("--live", action="store_true", help="allow a live key, whose events are about real people")


def run(arguments: argparse.Namespace) -> int:
    import httpx

    from kalends_webhooks.domain.subscription import make_secret

    base, key = installation.api(Home(arguments.data_dir))
    secret = arguments.secret or make_secret()
    headers = {"Authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=base, headers=headers, timeout=httpx.Timeout(20, read=QUIET_SECONDS)) as api,
        httpx.Client(timeout=30) as out,
    ):
        profile = _profile(api)
        if profile["mode"] != "test" and not arguments.live:
            raise Problem("this is a live key; take one of test mode, or say --live")
        print(f"{profile['name']} ({profile['mode']} mode) -> {arguments.forward_to}\nsecret {secret}", flush=True)
        for event_type, event_id, body in _events(api):
            if not arguments.event or event_type in arguments.event:
                _forward(out, arguments.forward_to, secret, event_type, event_id, body)
    return 0


def _profile(api: Any) -> dict[str, Any]:
    import httpx

    try:
        answer = api.get("/profile")
    except httpx.HTTPError as error:
        raise Problem(f"{api.base_url} does not answer: {error}") from error
    if answer.status_code != httpx.codes.OK:
        raise Problem(f"the key is refused: {answer.status_code} {answer.text}")
    profile: dict[str, Any] = answer.json()
    return profile


def _events(api: Any) -> Iterator[tuple[str, str, bytes]]:
    """(type, id, body) of each event, over lost connections, without end."""
    import httpx
    import msgspec

    cursor: str | None = None
    away = False
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
        try:
            with api.stream("GET", "/changes", params={} if cursor else {"after": "latest"}, headers=headers) as answer:
                if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                    raise Problem("the key is no longer valid, or may not read")
                if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY and cursor:
                    print("the place that was read to is no longer known; on with what is to come", flush=True)
                    cursor = None
                    continue
                answer.raise_for_status()
                if away:
                    print("connected again", flush=True)
                    away = False
                for line in answer.iter_lines():
                    if line.startswith("id: "):
                        cursor = line[4:]
                    elif line.startswith("data: "):
                        body = line[6:].encode()
                        event = msgspec.json.decode(body)
                        yield event["type"], event["id"], body
        except httpx.HTTPError as error:
            if not away:
                print(f"{_told(error)}; trying again until it is back", flush=True)
                away = True
        _wait(RECONNECT_SECONDS)


def _told(error: Any) -> str:
    """What went wrong, in a line."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.request.url.host} answers {error.response.status_code}"
    return f"the connection is lost ({type(error).__name__})"


def _forward(out: Any, url: str, secret: str, event_type: str, event_id: str, body: bytes) -> None:
    """Posts an event, up to three times, and tells what came of it."""
    import httpx

    for pause in (0.0, *PAUSES):
        _wait(pause)
        try:
            answer = out.post(url, content=body, headers=_headers(secret, event_id, body))
        except httpx.HTTPError as error:
            print(f"{event_type}  {event_id}  {type(error).__name__}", flush=True)
            continue
        print(f"{event_type}  {event_id}  {answer.status_code}", flush=True)
        if answer.is_success:
            return


def _headers(secret: str, event_id: str, body: bytes) -> dict[str, str]:
    import time

    from kalends_webhooks.delivery.targets import ed25519
    from kalends_webhooks.domain import signing

    keys: Sequence[signing.Key] = [signing.key(secret, ed25519)]
    signed = signing.headers("kalends", signing.Brand(), keys, event_id, int(time.time()), body)
    return {"Content-Type": "application/json", "User-Agent": "kalends-listen"} | signed
