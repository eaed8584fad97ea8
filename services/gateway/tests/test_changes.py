"""GET /changes as server-sent events, over a feed that this test serves in the webhooks service's stead."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx
import msgspec
import pytest
from gateway_kit import Api, Keyed, Running, Serve, Start, Under, bootstrap, problem

from kalends_gateway.changes import LOOK_SECONDS
from kalends_shared import nats
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.errors import invalid
from kalends_shared.contracts.webhooks import ChangeRow, ChangeRows, ChangesQuery
from kalends_shared.testkit.waiting import eventually_async


class Feed:
    """Events by tenant, whose cursor is their number."""

    def __init__(self) -> None:
        self.events: dict[str, list[bytes]] = {}
        self.reads = 0

    async def stream_changes(self, call: Call) -> Reply:
        self.reads += 1
        asked = query(call.query, ChangesQuery)
        if asked.after is not None and not asked.after.isdigit():
            raise invalid("?after", "invalid", "is not a cursor of this list")
        start = int(asked.after or 0)
        rows = [
            ChangeRow(str(start + n), msgspec.Raw(raw))
            for n, raw in enumerate(self.events.get(call.tenant, [])[start : start + asked.limit], 1)
        ]
        return Reply(body=ChangeRows(rows, rows[-1].cursor if rows else str(start)))


class Reader:
    """What has come over one stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.ids: list[str] = []
        self.data: list[Any] = []
        self.ended = False

    async def read(self) -> None:
        async for line in self.response.aiter_lines():
            if line.startswith("id:"):
                self.ids.append(line[3:].strip())
            if line.startswith("data:"):
                self.data.append(msgspec.json.decode(line[5:]))
        self.ended = True

    async def until(self, holds: Callable[["Reader"], bool]) -> None:
        async def look() -> bool:
            return holds(self)

        await eventually_async(look)


@asynccontextmanager
async def streaming(api: Api, path: str = "/changes", **headers: str) -> AsyncIterator[Reader]:
    request = api.http.stream(
        "GET", path, headers={"Accept": "text/event-stream"} | {k.replace("_", "-"): v for k, v in headers.items()}
    )
    async with request as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        reader = Reader(response)
        task = asyncio.create_task(reader.read())
        yield reader
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def feed(serve: Serve) -> Feed:
    one = Feed()
    await serve("webhooks", stream_changes=one.stream_changes)
    return one


@pytest.fixture
async def nudge(nats_url: str) -> AsyncIterator[Callable[[str], Any]]:
    bus = await nats.connect(nats_url, "test")
    yield lambda tenant: bus.publish(f"kalends.nudge.changes.{tenant}")
    await bus.close()


async def tenant_of(api: Api) -> str:
    me = (await api("GET", "/me")).json()
    return f"{me['id']}-{me['mode']}"


async def test_a_stream_gives_all_there_is_then_what_comes(
    keyed: Keyed, feed: Feed, nudge: Callable[[str], Any]
) -> None:
    key = await keyed("read")
    tenant = await tenant_of(key)
    feed.events[tenant] = [b'{"n":%d}' % n for n in range(250)]
    async with streaming(key) as reader:
        await reader.until(lambda r: len(r.data) == 250)
        assert (reader.data, reader.ids) == ([{"n": n} for n in range(250)], [str(n) for n in range(1, 251)])
        reads, began = feed.reads, monotonic()
        for n in range(250, 260):
            await nudge("acc_other-live")
            feed.events[tenant].append(b'{"n":%d}' % n)
            await nudge(tenant)
            await reader.until(lambda r, n=n: len(r.data) == n + 1)  # type: ignore[misc]
        assert reader.ids[-1] == "260"
        looks = (monotonic() - began) / LOOK_SECONDS + 1
        assert feed.reads - reads <= 10 + looks, "nobody else's nudges are heard"


async def test_it_goes_on_from_the_last_event_id(keyed: Keyed, feed: Feed) -> None:
    key = await keyed("read")
    feed.events[await tenant_of(key)] = [b'{"n":%d}' % n for n in range(5)]
    async with streaming(key, "/changes?after=1") as reader:
        await reader.until(lambda r: len(r.data) == 4)
    async with streaming(key, "/changes?after=1", last_event_id="3") as reader:
        await reader.until(lambda r: len(r.data) == 2)
        assert reader.ids == ["4", "5"]


async def test_what_is_wrong_is_told_before_the_stream(keyed: Keyed, feed: Feed, under: Under) -> None:
    key = await keyed("read")
    stream = {"Accept": "text/event-stream"}
    problem(await key("GET", "/changes?after=zz", headers=stream), 422, "validation_failed", "?after")
    problem(await key("GET", "/changes?nonsense=1", headers=stream), 422, "validation_failed", "?nonsense")
    problem(await (await keyed("webhooks"))("GET", "/changes", headers=stream), 403, "insufficient_scope")
    assert feed.reads == 1


async def test_the_other_modes_events_are_not_in_it(keyed: Keyed, feed: Feed) -> None:
    live, test = await keyed("read"), await keyed("read", mode="test")
    feed.events[await tenant_of(live)] = [b'{"of":"live"}']
    feed.events[await tenant_of(test)] = [b'{"of":"test"}']
    async with streaming(test) as reader:
        await reader.until(lambda r: len(r.data) == 1)
        assert reader.data == [{"of": "test"}]


async def test_a_revoked_keys_stream_gives_nothing_more(
    admin: Api, gateway: Running, feed: Feed, nudge: Callable[[str], Any], under: Under
) -> None:
    made = await admin.made("/api-keys", {"name": "x"})
    key = under(gateway, made["secret"])
    tenant = await tenant_of(key)
    feed.events[tenant] = [b"{}"]
    async with streaming(key) as reader:
        await reader.until(lambda r: len(r.data) == 1)
        await admin("DELETE", f"/api-keys/{made['id']}")
        feed.events[tenant].append(b"{}")
        await nudge(tenant)
        await reader.until(lambda r: r.ended)
        assert len(reader.data) == 1


async def test_streams_that_are_left_are_closed(gateway: Running, keyed: Keyed, feed: Feed) -> None:
    key = await keyed("read")

    async def opened(want: int) -> None:
        async def look() -> bool:
            return await gateway.metric("kalends_gateway_streams_open") == want

        await eventually_async(look)

    await opened(0)
    async with streaming(key), streaming(key):
        await opened(2)
    await key.http.aclose()
    await opened(0)


async def test_a_gateway_that_ends_ends_its_streams_and_takes_no_more_than_it_may(
    own_environment: dict[str, str], start: Start, under: Under, feed: Feed
) -> None:
    secret = (await bootstrap(own_environment))["api_key"]
    gateway = await start(more={"KALENDS_STREAMS": "2"})
    async with streaming(under(gateway, secret)) as one, streaming(under(gateway, secret)) as other:
        problem(
            await under(gateway, secret)("GET", "/changes", headers={"Accept": "text/event-stream"}), 503, "unavailable"
        )
        assert await gateway.end() == 0
        await one.until(lambda r: r.ended)
        await other.until(lambda r: r.ended)
