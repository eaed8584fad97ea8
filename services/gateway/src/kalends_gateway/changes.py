"""GET /changes as server-sent events: pages of the webhooks service, read on and on, woken by its nudges.

A nudge says only that there may be more; what is sent is always what was read after the last cursor, so a lost one costs
the seconds until the next look. A stream that nobody may read any more, as its key was revoked, ends before its next event.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urlencode

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import Gauge

from kalends_shared.contracts.call import Call
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.webhooks import ChangeRows, ChangesQuery
from kalends_shared.rpc import RpcClient

NUDGES: Final = "kalends.nudge.changes.*"
PAGE: Final = 100
LOOK_SECONDS: Final = 10.0  # between looks where no nudge came; each also tells the reader that the stream is alive
RETRY: Final = b"retry: 1000\n\n"
ALIVE: Final = b": alive\n\n"

OPEN: Final = Gauge("kalends_gateway_streams_open", "Streams of changes that are open.")

StillAllowed = Callable[[], Awaitable[bool]]


class Changes:
    """The streams of changes of this gateway."""

    def __init__(self, bus: Client, rpc: RpcClient, most: int) -> None:
        self._bus, self._rpc, self._most = bus, rpc, most
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closing = False
        self._open = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Listens for nudges until `stop`, then has every stream end."""

        async def nudged(message: Msg) -> None:
            self._wake(message.subject.rpartition(".")[2])

        subscription = await self._bus.subscribe(NUDGES, cb=nudged)
        await stop.wait()
        self._closing = True
        for tenant in list(self._waiting):
            self._wake(tenant)
        await subscription.unsubscribe()

    async def stream(self, call: Call, last_event_id: str | None, allowed: StillAllowed) -> AsyncGenerator[bytes, None]:
        """What comes after `Last-Event-ID`, else after `after`, until its reader closes it, or the gateway does.

        Raises:
            KalendsError: `validation_failed`, `unavailable` where too many are open.
        """
        if self._open >= self._most:
            raise KalendsError("unavailable", "Too many streams are open here.", retry_after=5)
        after = last_event_id or query(call.query, ChangesQuery).after
        written = self._written(call, after, allowed)
        await anext(written)
        return written

    async def _written(self, call: Call, after: str | None, allowed: StillAllowed) -> AsyncGenerator[bytes, None]:
        nudge = asyncio.Event()
        self._waiting[call.tenant].add(nudge)
        self._open += 1
        OPEN.set(self._open)
        try:
            found = await self._read(call, after)
            call = msgspec.structs.replace(call, min_position=None)  # the first read has waited for it
            yield b""  # so far it is awaited before the answer begins: what is wrong is told by a problem document
            yield RETRY
            with suppress(KalendsError):  # the reader asks again, by Last-Event-ID, as it does whenever a stream ends
                while not self._closing:
                    if found.rows:
                        yield b"".join(
                            [b"id: %s\ndata: %s\n\n" % (row.cursor.encode(), bytes(row.event)) for row in found.rows]
                        )
                    if len(found.rows) < PAGE and not await _nudged(nudge):
                        yield ALIVE
                    nudge.clear()
                    if self._closing or not await allowed():
                        return
                    found = await self._read(call, found.next_cursor)
        finally:
            self._open -= 1
            OPEN.set(self._open)
            waiting = self._waiting[call.tenant]
            waiting.discard(nudge)
            if not waiting:
                del self._waiting[call.tenant]

    async def _read(self, call: Call, after: str | None) -> ChangeRows:
        text = urlencode({"limit": PAGE} | ({"after": after} if after is not None else {}))
        asked = msgspec.structs.replace(call, query=text, deadline=0.0)
        reply = await self._rpc.request("webhooks", "stream_changes", asked, retry=True)
        return msgspec.json.decode(reply.body, type=ChangeRows)

    def _wake(self, tenant: str) -> None:
        for nudge in self._waiting.get(tenant, ()):
            nudge.set()


async def _nudged(nudge: asyncio.Event) -> bool:
    """Waits for a nudge; False where none came in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            return await nudge.wait()
    return False
