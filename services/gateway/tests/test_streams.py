"""Many streams of changes at once: what they cost, and that none is in the way of another."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from gateway_kit import Api, Keyed, Running, Serve, Under, running

from kalends_gateway.changes import ALIVE, MOST_BYTES, PAGE, Changes
from kalends_shared import nats
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.webhooks import ChangeRow, ChangeRows, ChangesQuery
from kalends_shared.service import allow_connections
from kalends_shared.testkit import scale
from kalends_shared.testkit.waiting import eventually_async

Nudge = Callable[[], Awaitable[None]]


class Feed:
    """One account's events, whose cursor is their number; while it is `away` nobody is answered."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.reads = self.given = 0  # how often it was read, and how many events that gave
        self.away = False

    async def stream_changes(self, call: Call) -> Reply:
        self.reads += 1
        if self.away:
            raise KalendsError("unavailable")
        return Reply(body=self.page(query(call.query, ChangesQuery)))

    def page(self, asked: ChangesQuery) -> ChangeRows:
        start = len(self.events) if asked.after == "latest" else int(asked.after or 0)
        found = self.events[start : start + asked.limit]
        self.given += len(found)
        rows = [ChangeRow(str(start + n), msgspec.Raw(raw)) for n, raw in enumerate(found, 1)]
        return ChangeRows(rows, rows[-1].cursor if rows else str(start))


@pytest.fixture
async def feed(serve: Serve) -> Feed:
    one = Feed()
    await serve("webhooks", stream_changes=one.stream_changes)
    return one


@pytest.fixture
async def key(keyed: Keyed) -> Api:
    return await keyed("read", mode="test")


@pytest.fixture
async def nudge(nats_url: str, key: Api) -> AsyncIterator[Nudge]:
    me = (await key("GET", "/me")).json()
    bus = await nats.connect(nats_url, "test")

    async def send() -> None:
        await bus.publish(f"kalends.nudge.changes.{me['id']}-{me['mode']}")
        await bus.flush()

    yield send
    await bus.close()


class Stream(asyncio.Protocol):
    """A reader of one stream: all that has come, as it came. One that is `deaf` takes nothing once it is open."""

    def __init__(self, request: bytes, *, deaf: bool = False) -> None:
        self._request, self._deaf = request, deaf
        self.text = b""
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.text += data
        if self._deaf and b"retry:" in self.text:
            self.transport.pause_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True

    def listen(self) -> None:
        """Takes from now on what comes."""
        self._deaf = False
        self.transport.resume_reading()

    def ids(self) -> list[int]:
        return [int(found) for found in re.findall(rb"^id: (\d+)$", self.text, re.MULTILINE)]

    async def over(self, last: int = 0) -> bool:
        """Whether the answer has come to its end, or to that id."""
        return self.text.endswith(b"\r\n0\r\n\r\n") or (last > 0 and self.ids()[-1:] == [last])


@asynccontextmanager
async def streams(
    key: Api, count: int, query: str = "after=latest", *, deaf: bool = False
) -> AsyncIterator[list[Stream]]:
    """So many of them, all open."""
    parts = urlsplit(key.url)
    head = f"GET /api/v1/changes?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.key}\r\n"
    request = (head + "Accept: text/event-stream\r\n\r\n").encode()
    made: list[Stream] = []
    try:
        for _ in range(count):
            loop = asyncio.get_running_loop()
            _, one = await loop.create_connection(lambda: Stream(request, deaf=deaf), parts.hostname, parts.port)
            made.append(one)
        await all_of(made, lambda one: b"retry:" in one.text)
        yield made
    finally:
        for one in made:
            one.transport.abort()


async def all_of(made: list[Stream], holds: Callable[[Stream], bool]) -> None:
    async def look() -> bool:
        assert not any(one.ended for one in made)
        return all(map(holds, made))

    await eventually_async(look)


async def test_a_thousand_streams_of_an_account_read_together(key: Api, feed: Feed, nudge: Nudge) -> None:
    many = scale.count(reduced=200, full=1_000)
    allow_connections()
    async with streams(key, many) as made:
        reads = feed.reads
        for number in range(3):
            feed.events.append(b'{"n":%d}' % number)
            await nudge()
            await all_of(made, lambda one, text=b'{"n":%d}' % number: text in one.text)
        assert feed.reads - reads < many, "not one read a stream"
        for one in made:
            assert [one.text.count(b'{"n":%d}' % number) for number in range(3)] == [1, 1, 1]
            assert [one.text.count(b"id: %d\n" % number) for number in (1, 2, 3)] == [1, 1, 1]


async def test_a_reader_that_takes_nothing_pins_nothing(key: Api, gateway: Running, feed: Feed, nudge: Nudge) -> None:
    """Its stream ends once it holds so much; others go on; and by the last id that it has, it gets the rest, each once."""
    feed.events += [b'{"n":%d,"x":"%s"}' % (number, b"x" * 4_000) for number in range(4_000)]

    async def held(want: int) -> None:
        async def look() -> bool:
            return await gateway.metric("kalends_gateway_streams_open") == want

        await eventually_async(look)

    await held(0)
    async with streams(key, 5) as quick:
        async with streams(key, 1, "after=0", deaf=True) as (slow,):
            await held(5)
            assert feed.given <= MOST_BYTES // 4_000 + 2 * PAGE, "it is not read to the end for who does not take it"
            feed.events.append(b'{"n":"last"}')
            await nudge()
            await all_of(quick, lambda one: b'{"n":"last"}' in one.text)
            slow.listen()
            await eventually_async(slow.over)
        seen = slow.ids()
        while seen[-1] < len(feed.events):
            async with streams(key, 1, f"after={seen[-1]}") as (again,):
                await eventually_async(lambda again=again: again.over(len(feed.events)))
            seen += again.ids()
    assert seen == list(range(1, 4_002))


async def test_a_reader_that_takes_nothing_has_its_place_for_a_bounded_time(
    shared_environment: dict[str, str], tmp_path: Path, key: Api, under: Under, feed: Feed
) -> None:
    """Also where nothing happens; and who reads goes on where it was, though it has not had an event yet."""
    feed.events.append(b'{"n":1}')
    async with running(shared_environment | {"KALENDS_STREAM_SECONDS": "1"}, tmp_path) as gateway:
        short = under(gateway, key.key)

        async def free() -> bool:
            return await gateway.metric("kalends_gateway_streams_open") == 0

        async with streams(short, 1, deaf=True) as (deaf,):
            await eventually_async(free)
            assert not deaf.ended, "its connection is there, and nobody reads"
        async with streams(short, 1) as (one,):
            await eventually_async(one.over)
        assert (one.ids(), b"data:" in one.text) == ([1], False)
        feed.events.append(b'{"n":2}')
        async with streams(short, 1, f"after={one.ids()[-1]}") as (again,):
            await eventually_async(lambda: again.over(2))
            assert again.ids() == [2]


async def test_streams_outlive_an_absence_of_what_they_read(key: Api, feed: Feed, nudge: Nudge) -> None:
    async with streams(key, 3) as made:
        feed.away = True
        feed.events.append(b'{"n":1}')
        reads = feed.reads
        await nudge()

        async def asked() -> bool:
            return feed.reads > reads

        await eventually_async(asked)
        await all_of(made, lambda one: b": alive" in one.text)
        feed.away = False
        await nudge()
        await all_of(made, lambda one: b'{"n":1}' in one.text)


class Behind:
    """A service whose answers are of the moment at which they were asked for, and come when they are let go."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.asked: list[asyncio.Event] = []

    async def request(self, _service: str, _method: str, call: Call, **_: Any) -> Reply:
        body = msgspec.json.encode(self.feed.page(query(call.query, ChangesQuery)))
        self.asked.append(asyncio.Event())
        await self.asked[-1].wait()
        return Reply(body=body)


async def test_a_nudge_during_a_read_is_not_lost() -> None:
    """The read under way may not have seen what it was for: so there is one more, and no stream joins the old one."""
    feed = Feed()
    behind = Behind(feed)
    changes = Changes(None, behind, 10, 3_600.0)  # type: ignore[arg-type]  # of the bus only `run` makes use

    async def allowed() -> bool:
        return True

    async def reading(count: int) -> None:
        async def look() -> bool:
            return len(behind.asked) >= count

        await eventually_async(look)

    async def opened(number: int) -> Any:
        call = Call(tenant="acc_1-test", now=datetime.now(UTC))
        opening = asyncio.create_task(changes.stream(call, None, allowed))
        await reading(number)
        behind.asked[-1].set()
        stream = await opening
        assert await anext(stream) == b"retry: 1000\n\n"
        return stream

    made = [await opened(number) for number in (1, 2)]
    account = changes._accounts["acc_1-test"]
    first = [asyncio.create_task(anext(one)) for one in made]
    await asyncio.sleep(0)
    account.wake()
    await reading(3)
    feed.events.append(b'{"n":1}')
    account.wake()
    behind.asked[2].set()
    assert await asyncio.gather(*first) == [ALIVE, ALIVE], "one read for both"
    second = [asyncio.create_task(anext(one)) for one in made]
    await reading(4)
    behind.asked[3].set()
    assert await asyncio.gather(*second) == [b'id: 1\ndata: {"n":1}\n\n'] * 2
    assert len(behind.asked) == 4
    for one in made:
        await one.aclose()
    assert changes._accounts == {}
