"""What the service asks of a calendar provider, whoever it is.

An adapter knows protocols and nothing of bookings, tables or busy time. It gives each calendar object as iCalendar text,
under an opaque `ref` that stays the same for as long as the object exists, with an opaque `etag` that changes with it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Literal, Protocol

from msgspec import Struct

Code = Literal[
    "unauthorized", "forbidden", "not_found", "conflict", "rate_limited", "unreachable", "bad_answer", "not_allowed"
]


class ProviderError(Exception):
    """A provider that did not do what it was asked.

    `sent` tells that the request may have had its effect although no answer came. `retry_after` is in seconds.
    """

    def __init__(self, code: Code, detail: str, *, retry_after: float | None = None, sent: bool = False) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: Code = code
        self.detail = detail
        self.retry_after = retry_after
        self.sent = sent


class Account(Struct, frozen=True, kw_only=True):
    """Where and as whom; `url` is the calendar's own once it was located."""

    url: str
    username: str | None = None
    password: str | None = None


class Located(Struct, frozen=True, kw_only=True):
    """The calendar that an account's URL leads to.

    `owners` are its owner's addresses in lower case; `timezone` is the TZID or VTIMEZONE that the server names for
    floating times, if it does.
    """

    url: str
    owners: frozenset[str] = frozenset()
    timezone: str | None = None


class Item(Struct, frozen=True):
    """One calendar object; `text` is None where it is too large to be read."""

    ref: str
    etag: str
    text: str | None


class Page(Struct, frozen=True, kw_only=True):
    """A part of what has changed: new or changed items, and refs of what is gone.

    The last page brings the `token` to go on from. Where it is `complete`, the pages together are the whole calendar:
    `present` are the refs of all that is there, and what was known besides is gone.
    """

    items: list[Item] = []
    gone: list[str] = []
    token: str | None = None
    present: frozenset[str] = frozenset()
    complete: bool = False
    last: bool = False


# Etags by ref of what is known; asked for only where there is something to compare.
Etags = Callable[[], Awaitable[Mapping[str, str]]]


class Adapter(Protocol):
    """One calendar of one account. Every method raises ProviderError, and nothing else, for what the provider does."""

    async def locate(self) -> Located:
        """Finds the calendar, by discovery where the URL is not its own."""
        ...

    def changes(self, token: str | None, known: Etags, *, whole: bool = False) -> AsyncIterator[Page]:
        """What has changed since `token`. Items whose etags are `known` are not read again.

        Without a token, or where the provider no longer knows it, or with `whole`, the pages are complete.
        """
        ...

    async def get(self, ref: str) -> Item | None:
        """Reads one item, None where there is none."""
        ...

    def ref_for(self, uid: str) -> str:
        """The ref under which an item of that UID is to be created."""
        ...

    async def put(self, ref: str, text: str, etag: str | None) -> str:
        """Writes an item over the version that `etag` names, or creates it where it is None; returns the new etag.

        Raises:
            ProviderError: `conflict` where the item has another version, or, creating, is there already.
        """
        ...

    async def delete(self, ref: str, etag: str) -> None:
        """Removes an item at that version; one that is not there is removed already.

        Raises:
            ProviderError: `conflict` where it has another version.
        """
        ...

    async def close(self) -> None: ...
