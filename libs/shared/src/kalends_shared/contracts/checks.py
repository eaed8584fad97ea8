"""Named checks of single fields, beyond type and length. Each gives what is wrong as (pointer below the field, detail)."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import urlsplit

from kalends_shared.contracts import jsjson

Problem = tuple[str, str]

# The local part and domain of RFC 5321 4.1.2 without quoted strings and address literals, which no booker types.
_EMAIL: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]{1,64}@(?:[^\s@.]{1,63}\.)*[^\s@.]{1,63}")
_CLOCK: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00")
# As people write them: digits and what stands between them, an extension after them.
_PHONE: Final = re.compile(r"\+?(?:[ ().\-/]*[0-9]){3,20}[ )]*(?:(?:x|ext\.?|#)\s*[0-9]{1,6})?", re.IGNORECASE)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
_METADATA_KEYS: Final = 50
_METADATA_KEY: Final = 40
_METADATA_VALUE: Final = 500


@cache
def zones() -> frozenset[str]:
    """The zone names of the pinned tzdata package, never the machine's."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


def zone(value: str) -> Iterator[Problem]:
    if value not in zones():
        yield "", "is not an IANA time zone"


def email(value: str) -> Iterator[Problem]:
    if not _EMAIL.fullmatch(value) or ".." in value or value.startswith(".") or ".@" in value:
        yield "", "is not an e-mail address"


def clock_time(value: str) -> Iterator[Problem]:
    if not _CLOCK.fullmatch(value):
        yield "", "is not a time of day as HH:MM"


def url(value: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(value)
        ok = parts.scheme in {"http", "https"} and bool(parts.hostname) and not re.search(r"[\s\x00-\x1f]", value)
        _ = parts.port
    except ValueError:
        ok = False
    if not ok:
        yield "", "is not an http or https URL"


def phone(value: str) -> Iterator[Problem]:
    if not _PHONE.fullmatch(value.strip()):
        yield "", "is not a phone number"


def metadata(value: Any) -> Iterator[Problem]:
    if len(value) > _METADATA_KEYS:
        yield "", f"has more than {_METADATA_KEYS} keys"
    for key, item in value.items():
        if not 1 <= len(key) <= _METADATA_KEY:
            yield f"/{escape(key)}", f"has a key that is not of 1 to {_METADATA_KEY} characters"
        yield from value_size(key, item)


def value_size(key: str, item: Any) -> Iterator[Problem]:
    """A value is any JSON of at most 500 characters: a string's own length, else that of its compact form."""
    size = len(item) if isinstance(item, str) else len(jsjson.canonical(item).decode())
    if size > _METADATA_VALUE:
        yield f"/{escape(key)}", f"is longer than {_METADATA_VALUE} characters"


def start(value: datetime) -> Iterator[Problem]:
    if value >= _LATEST:
        yield "", "is too far away"


def any_object(value: Any) -> Iterator[Problem]:  # noqa: ARG001 (its bounds are the body's)
    yield from ()


def escape(member: str) -> str:
    """A member's name inside a JSON pointer (RFC 6901 section 3)."""
    return member.replace("~", "~0").replace("/", "~1")


CHECKS: Final[dict[str, Callable[[Any], Iterator[Problem]]]] = {
    "zone": zone,
    "email": email,
    "clock_time": clock_time,
    "url": url,
    "metadata": metadata,
    "start": start,
    "object": any_object,
}
