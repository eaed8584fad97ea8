"""The kinds of field that public Structs are made of. `extra` names the check of contracts.checks that applies besides."""

from datetime import date, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

MINUTES_A_DAY: Final = 1440

Name = Annotated[str, Meta(min_length=1, max_length=500)]
Description = Annotated[str, Meta(min_length=1, max_length=5000)]
Slug = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[a-z0-9-]+$")]
Email = Annotated[str, Meta(max_length=320, extra={"check": "email"}, extra_json_schema={"format": "email"})]
Zone = Annotated[str, Meta(max_length=64, extra={"check": "zone"}, description="An IANA time zone name.")]
ClockTime = Annotated[str, Meta(extra={"check": "clock_time"}, description="HH:MM, 24:00 at most.")]
Url = Annotated[str, Meta(max_length=2048, extra={"check": "url"}, extra_json_schema={"format": "uri"})]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217.")]
Phone = Annotated[str, Meta(min_length=1, max_length=50)]
# What a hash or a login is made with, and so kept to the byte: it alone is not trimmed.
Verbatim = Annotated[str, Meta(min_length=1, max_length=1000, extra={"verbatim": True})]
ShortKey = Annotated[str, Meta(min_length=1, max_length=40)]
Instant = datetime
# Of what is asked for: far enough from the last date there is for all that is reckoned from it.
Start = Annotated[datetime, Meta(extra={"check": "start"})]
Day = date
Minutes = Annotated[int, Meta(ge=0, le=MINUTES_A_DAY)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
# Generators of clients take an object that says nothing of its members for one that has none.
_ANY_MEMBERS: Final = {"type": "object", "additionalProperties": True}
# Any JSON object of at most 50 keys, kept in JavaScript's form (contracts.jsjson).
Json = Annotated[msgspec.Raw, Meta(extra={"check": "metadata"}, extra_json_schema=_ANY_MEMBERS)]
# Any JSON object within the body's own bounds (answers to questions, a page's theme).
Object = Annotated[msgspec.Raw, Meta(extra={"check": "object"}, extra_json_schema=_ANY_MEMBERS)]
EMPTY: Final = msgspec.Raw(b"{}")


def parsed(raw: msgspec.Raw) -> dict[str, Any]:
    """The parsed form of a `Json` or `Object` value."""
    value: dict[str, Any] = msgspec.json.decode(raw)
    return value
