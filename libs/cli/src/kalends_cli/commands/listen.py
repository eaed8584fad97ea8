"""`kalends listen --forward-to URL`: an account's events, as they happen, to a receiver without a public address.

It reads `GET /changes` as server-sent events and posts each to the receiver, signed as a webhook of the default profile
is, by a secret of its own. It begins with what is to come, and after a lost connection where it had got to.
"""

import argparse
import threading
from collections.abc import Iterable, Iterator, Sequence
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

    from kalends_shared.contracts.webhooks import EVENT_TYPES
    from kalends_webhooks.domain import signing
    from kalends_webhooks.domain.subscription import make_secret

    base, key = installation.api(Home(arguments.data_dir))
    secret = arguments.secret or make_secret()
    for url, name in ((base, "KALENDS_URL"), (arguments.forward_to, "--forward-to")):
        _check_url(url, name)
    if not signing.readable(secret):
        raise Problem("--secret must be base64 after whsec_, or of an ed25519 private key after whsk_")
    if unknown := set(arguments.event or ()) - set(EVENT_TYPES):
        raise Problem(f"there is no event {', '.join(sorted(unknown))}, but {', '.join(EVENT_TYPES)}")
    headers = {"Authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=base, headers=headers, timeout=httpx.Timeout(20, read=QUIET_SECONDS)) as api,
        httpx.Client(timeout=30, trust_env=False) as out,  # what stands near is not behind a proxy
    ):
        try:
            profile = _get(api, "/profile")
            if profile["mode"] != "test" and not arguments.live:
                raise Problem("this is a live key; take one of test mode, or say --live")
            cursor = _latest(api)
        except httpx.HTTPError as error:
            raise Problem(f"{base} cannot be read: {_told(error)}") from error
        print(f"{profile['name']} ({profile['mode']} mode) -> {arguments.forward_to}\nsecret {secret}", flush=True)
        for event_type, event_id, body in _events(api, cursor):
            if not arguments.event or event_type in arguments.event:
                _forward(out, arguments.forward_to, secret, event_type, event_id, body)
    return 0


def _check_url(text: str, name: str) -> None:
    import httpx

    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise Problem(f"{name} is no URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise Problem(f"{name} must be a URL like http://localhost:3000, and not {text}")


def _get(api: Any, path: str, **params: str) -> dict[str, Any]:
    """An answer of the API.

    Raises:
        Problem: it refuses the key, or is no answer of Kalends.
        httpx.HTTPError: there is none, or another status.
    """
    answer = api.get(path, params=params)
    _admitted(answer)
    answer.raise_for_status()
    try:
        found: dict[str, Any] = answer.json()
    except ValueError as error:
        raise Problem(f"what answers at {answer.url} is not Kalends") from error
    return found


def _admitted(answer: Any) -> None:
    import httpx

    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise Problem("the key is not valid, or no longer")
    if answer.status_code == httpx.codes.FORBIDDEN:
        raise Problem("the key may not read")


def _latest(api: Any) -> str:
    """The place after all that has happened."""
    cursor: str = _get(api, "/changes", after="latest", limit="1")["next_cursor"]
    return cursor


def _events(api: Any, cursor: str) -> Iterator[tuple[str, str, bytes]]:
    """(type, id, body) of each event after a place, over lost connections, without end."""
    import httpx
    import msgspec

    away = False
    while True:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
        try:
            with api.stream("GET", "/changes", headers=headers) as answer:
                _admitted(answer)
                if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
                    print("the place that was read to is no longer known; on with what is to come", flush=True)
                    cursor = _latest(api)
                    continue
                answer.raise_for_status()
                if away:
                    print("connected again", flush=True)
                    away = False
                for fields in _blocks(answer.iter_bytes()):
                    if b"data" in fields:
                        cursor, body = fields[b"id"].decode(), fields[b"data"]
                        event = msgspec.json.decode(body)
                        yield event["type"], event["id"], body
        except httpx.HTTPError as error:
            if not away:
                print(f"{_told(error)}; trying again until it is back", flush=True)
                away = True
        _wait(RECONNECT_SECONDS)


def _blocks(pieces: Iterable[bytes]) -> Iterator[dict[bytes, bytes]]:
    """The fields of each server-sent event that is whole: of one that is cut off the place does not count either."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        for block in whole:
            fields = [line.partition(b": ") for line in block.split(b"\n")]
            yield {name: value for name, _, value in fields}


def _told(error: Any) -> str:
    """What went wrong, in a few words."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.request.url.host} answers {error.response.status_code}"
    return f"there is no connection ({str(error) or type(error).__name__})"


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
