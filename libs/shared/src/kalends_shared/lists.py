"""Lists, as the contract has them: by `limit` and `cursor`, or by `page` and `per_page`, never both.

A handler reads its window, asks for `window.take` rows from `window.after` or `window.offset` on, and answers:

    window = lists.window(query, BookingsKey)              # a Struct of what the list is sorted by
    rows = await conn.fetch(SQL, tenant, window.after and window.after.start_at, ..., window.take, window.offset)
    total = await conn.fetchval(COUNT_SQL, tenant) if window.numbered else None
    return Reply(body=lists.answer(window, rows, key=lambda row: BookingsKey(row["start_at"], row["id"]), encode=..., total=total))
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar
from zlib import crc32

import msgspec

from kalends_shared.contracts.errors import FieldError, KalendsError, invalid

DEFAULT_SIZE: Final = 25
K = TypeVar("K", bound=msgspec.Struct)
R = TypeVar("R")


class Paged(Protocol):
    """What every list's query Struct has."""

    limit: int | None
    cursor: str | None
    page: int | None
    per_page: int | None


class Window(msgspec.Struct, Generic[K], frozen=True):
    """Which rows were asked for: `size` of them after the key `after`, or, by number, from `offset` on."""

    size: int
    after: K | None = None
    page: int | None = None

    @property
    def numbered(self) -> bool:
        return self.page is not None

    @property
    def offset(self) -> int:
        return 0 if self.page is None else (self.page - 1) * self.size

    @property
    def take(self) -> int:
        """How many rows to read: one more than is given, which tells whether there are more."""
        return self.size + 1


def window(query: Paged, key: type[K]) -> Window[K]:
    """Reads which rows a list's query asks for.

    Raises:
        KalendsError: `validation_failed`, for both forms together, or a cursor that this list did not make.
    """
    numbered = query.page is not None or query.per_page is not None
    if numbered and (query.limit is not None or query.cursor is not None):
        names = [name for name in ("limit", "cursor") if getattr(query, name) is not None]
        fields = tuple(
            FieldError(f"?{name}", "invalid", "does not go together with page and per_page") for name in names
        )
        raise KalendsError("validation_failed", "A list goes by cursor or by page number, not both.", fields)
    if numbered:
        return Window(query.per_page or DEFAULT_SIZE, page=query.page or 1)
    return Window(
        query.limit or DEFAULT_SIZE, after=read_cursor(query.cursor, key) if query.cursor is not None else None
    )


def answer(
    window: Window[K],
    rows: Sequence[R],
    *,
    key: Callable[[R], K],
    encode: Callable[[R], bytes],
    total: int | None = None,
) -> bytes:
    """The answer's bytes. `rows` are what was read, up to `window.take`; `total` is needed for a numbered window."""
    given = rows[: window.size]
    data = b",".join([encode(row) for row in given])
    if window.page is not None:
        total = total or 0
        more = window.offset + len(given) < total
        tail = b'"has_more":%s,"next_cursor":null,"page":%d,"per_page":%d,"total":%d' % (
            _json(more),
            window.page,
            window.size,
            total,
        )
    else:
        more = len(rows) > window.size
        tail = b'"has_more":%s,"next_cursor":%s' % (_json(more), _json(make_cursor(key(given[-1])) if more else None))
    return b'{"data":[%s],%s}' % (data, tail)


def make_cursor(key: msgspec.Struct) -> str:
    """An opaque place in a list. Its checksum keeps a mangled one from being read as another place."""
    raw = msgspec.json.encode(msgspec.structs.astuple(key))
    return urlsafe_b64encode(crc32(raw).to_bytes(4) + raw).rstrip(b"=").decode()


def read_cursor(text: str, key: type[K], pointer: str = "?cursor") -> K:
    """The place that a cursor names.

    Raises:
        KalendsError: `validation_failed` at the pointer.
    """
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        values = msgspec.json.decode(raw[4:])
        fields = key.__struct_fields__
        if crc32(raw[4:]).to_bytes(4) == raw[:4] and isinstance(values, list) and len(values) == len(fields):
            return msgspec.convert(dict(zip(fields, values, strict=True)), key)
    except (Base64Error, UnicodeEncodeError, msgspec.MsgspecError, ValueError):
        pass  # told below, as what does not match is
    raise invalid(pointer, "invalid", "is not a cursor of this list")


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
