"""GET /changes: every public event of the account in order, and the same rows for the gateway's streams."""

from collections.abc import Mapping
from typing import Final
from zlib import crc32

import msgspec
from msgspec import Struct

from kalends_shared import lists
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.errors import invalid
from kalends_shared.contracts.webhooks import ChangeRow, ChangeRows, ChangesQuery
from kalends_shared.db import Database
from kalends_shared.positions import PositionWatch, wait_for
from kalends_webhooks.domain import payloads
from kalends_webhooks.store import feed

LATEST: Final = "latest"


class Place(Struct):
    """A place in an account's order; `of` is a checksum of the account, which knows no other account's places."""

    seq: int
    of: int


class Changes:
    def __init__(self, db: Database, watches: Mapping[str, PositionWatch]) -> None:
        self._db, self._watches = db, watches

    async def list(self, call: Call) -> Reply:
        """A page; `next_cursor` is never null, so that a reader goes on from it later."""
        asked = query(call.query, ChangesQuery)
        after = await self._after(call, asked)
        rows = await feed.after(self._db.pool, call.tenant, after, asked.limit + 1)
        given = rows[: asked.limit]
        cursor = _cursor(call.tenant, given[-1][0] if given else after)
        data = b",".join([payloads.kalends(event) for _, event in given])
        more = b"true" if len(rows) > asked.limit else b"false"
        return Reply(body=b'{"data":[%b],"has_more":%b,"next_cursor":"%b"}' % (data, more, cursor.encode()))

    async def stream(self, call: Call) -> Reply:
        """The same, each row with its own cursor."""
        asked = query(call.query, ChangesQuery)
        after = await self._after(call, asked)
        rows = await feed.after(self._db.pool, call.tenant, after, asked.limit)
        made = [ChangeRow(_cursor(call.tenant, seq), msgspec.Raw(payloads.kalends(event))) for seq, event in rows]
        return Reply(body=ChangeRows(made, _cursor(call.tenant, rows[-1][0] if rows else after)))

    async def _after(self, call: Call, asked: ChangesQuery) -> int:
        """The place after which to read; `latest` is that of the newest event, for who wants only what is to come.

        Raises:
            KalendsError: `validation_failed` at `?after`, `position_not_reached`.
        """
        await wait_for(self._watches, call)
        if asked.after is None:
            return 0
        if asked.after == LATEST:
            return await feed.last(self._db.pool, call.tenant)
        place = lists.read_cursor(asked.after, Place, "?after")
        known = place.of == crc32(call.tenant.encode())
        if not known or not 0 <= place.seq <= await feed.last(self._db.pool, call.tenant):
            raise invalid("?after", "invalid", "is not a cursor of this account's changes")
        return place.seq


def _cursor(tenant: str, seq: int) -> str:
    return lists.make_cursor(Place(seq, crc32(tenant.encode())))
