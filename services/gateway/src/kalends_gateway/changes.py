"""GET /changes as server-sent events: pages of the webhooks service, read on and on, woken by its nudges.

A nudge says only that there may be more; what is sent is always what was read after the last cursor, so a lost one costs
the seconds until the next look. Streams that have come as far as each other read together: a thousand of an account cost
one read an event. While something behind this gateway is away, streams stay open and wait; one that nobody may read any
more, as its key was revoked, ends before its next event.

The server takes whatever it is given, and keeps it for a reader who does not take it. So a stream ends after a bounded
number of bytes, and after a bounded time, and has its reader come again at once, by Last-Event-ID: one that reads nothing
costs that and no more, and where nothing happens it has a stream's place for that time, as its end may never be told.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import Gauge

from kalends_shared.contracts.call import Call
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.webhooks import ChangeRows, ChangesQuery
from kalends_shared.db import transient
from kalends_shared.rpc import RpcClient
from kalends_shared.service import wait

NUDGES: Final = "kalends.nudge.changes.*"
PAGE: Final = 100
# Between looks where no nudge came, at most; each also tells the readers that their streams are alive.
LOOK_SECONDS: Final = 10.0
RETRY: Final = b"retry: 1000\n\n"
AT_ONCE: Final = b"retry: 10\n\n"
MOST_BYTES: Final = 1 << 20  # of a stream
ALIVE: Final = b": alive\n\n"
PASSING: Final = frozenset({"unavailable", "timeout"})

OPEN: Final = Gauge("kalends_gateway_streams_open", "Streams of changes that are open.")

StillAllowed = Callable[[], Awaitable[bool]]


class _Page(NamedTuple):
    """What came after a cursor, as it is written to streams; `full` where there may be more at once."""

    text: bytes
    cursor: str
    full: bool


class _Account:
    """The streams of one account: whom to wake, and the reads that are under way, by the cursor after which they read.

    A read that began before a nudge may not have seen what the nudge was for: so `turn` counts them, and is part of the key.
    """

    def __init__(self) -> None:
        self.waiting: set[asyncio.Event] = set()
        self.turn = 0
        self.reads: dict[tuple[int, str | None], asyncio.Task[_Page]] = {}

    def wake(self) -> None:
        self.turn += 1
        for nudge in self.waiting:
            nudge.set()


class Changes:
    """The streams of changes of this gateway."""

    def __init__(self, bus: Client, rpc: RpcClient, most: int, seconds: float) -> None:
        self._bus, self._rpc, self._most, self._seconds = bus, rpc, most, seconds
        self._accounts: defaultdict[str, _Account] = defaultdict(_Account)
        self._closing = False
        self._open = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Listens for nudges, and looks by itself now and then, until `stop`; then has every stream end."""

        async def nudged(message: Msg) -> None:
            if (account := self._accounts.get(message.subject.rpartition(".")[2])) is not None:
                account.wake()

        subscription = await self._bus.subscribe(NUDGES, cb=nudged)
        while not await wait(stop, min(LOOK_SECONDS, self._seconds)):
            self._wake_all()
        self._closing = True
        self._wake_all()
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
        account = self._accounts[call.tenant]
        account.waiting.add(nudge)
        self._open += 1
        OPEN.set(self._open)
        try:
            page = await self._read(call, after)
            call = msgspec.structs.replace(call, min_position=None)  # the first read has waited for it
            yield b""  # so far it is awaited before the answer begins: what is wrong is told by a problem document
            written, told = len(page.text), bool(page.text)
            yield RETRY + page.text
            now = asyncio.get_running_loop().time
            # Not the same of all, so that they do not come again together.
            until = now() + self._seconds * random.uniform(0.5, 1)
            with suppress(KalendsError):  # its reader asks again, by Last-Event-ID, and hears what is wrong
                while not self._closing:
                    if written >= MOST_BYTES or now() >= until:
                        # Who asked for what comes after `latest`, and has had nothing, has no id yet to ask by.
                        yield AT_ONCE if told else b"id: %s\n%s" % (page.cursor.encode(), AT_ONCE)
                        return
                    if not page.full:
                        await nudge.wait()
                    nudge.clear()
                    try:
                        if self._closing or not await allowed():
                            return
                        page = await self._together(account, call, page.cursor)
                    except Exception as error:
                        if not _passing(error):
                            raise
                        page = _Page(b"", page.cursor, full=False)
                    text = page.text or ALIVE
                    written, told = written + len(text), told or bool(page.text)
                    yield text
        finally:
            self._open -= 1
            OPEN.set(self._open)
            account.waiting.discard(nudge)
            if not account.waiting:
                self._accounts.pop(call.tenant, None)

    async def _together(self, account: _Account, call: Call, after: str | None) -> _Page:
        """Reads on, or waits for who already does; a stream that is closed meanwhile takes the read from nobody."""
        key = (account.turn, after)
        read = account.reads.get(key)
        if read is None:
            read = account.reads[key] = asyncio.create_task(self._read(call, after))

            def ended(task: asyncio.Task[_Page]) -> None:
                account.reads.pop(key, None)
                if not task.cancelled():
                    task.exception()  # told to whoever waits; perhaps nobody does any more

            read.add_done_callback(ended)
        return await asyncio.shield(read)

    async def _read(self, call: Call, after: str | None) -> _Page:
        text = urlencode({"limit": PAGE} | ({"after": after} if after is not None else {}))
        asked = msgspec.structs.replace(call, query=text, deadline=0.0)
        reply = await self._rpc.request("webhooks", "stream_changes", asked, retry=True)
        found = msgspec.json.decode(reply.body, type=ChangeRows)
        written = [b"id: %s\ndata: %s\n\n" % (row.cursor.encode(), bytes(row.event)) for row in found.rows]
        return _Page(b"".join(written), found.next_cursor, full=len(found.rows) >= PAGE)

    def _wake_all(self) -> None:
        for account in self._accounts.values():
            account.wake()


def _passing(error: Exception) -> bool:
    """Tells whether something is away that will be back."""
    return error.code in PASSING if isinstance(error, KalendsError) else transient(error)
