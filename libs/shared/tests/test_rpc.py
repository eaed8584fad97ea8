"""RPC on a real NATS server: answers, refusals, deadlines, retries, concurrency and drain."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from kalends_shared import nats, rpc, telemetry
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import FieldError, KalendsError
from kalends_shared.contracts.events import Actor
from kalends_shared.ops import Health
from kalends_shared.rpc import Handler, RpcClient, RpcServer
from kalends_shared.servers import Nats
from kalends_shared.testkit.waiting import eventually_async

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Serve = Callable[..., Awaitable[RpcServer]]


PATIENCE = (2.0, 8.0, 32.0)  # seconds until a deadline that is to pass: more each time that the machine was too slow


def call(seconds: float = 120, **more: Any) -> Call:
    return Call(tenant="acc_1-live", now=NOW, deadline=time.time() + seconds, **more)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_url, "test")
    yield client
    await client.close()


@pytest.fixture
async def serve(bus: Client, nats_url: str) -> AsyncIterator[Serve]:
    """Serves handlers as service `probe`, on a connection of its own."""
    running: list[tuple[RpcServer, Client]] = []

    async def start(concurrency: int = 64, **handlers: Handler) -> RpcServer:
        own = await nats.connect(nats_url, "probe")
        server = RpcServer(own, "probe", handlers, concurrency)
        await server.start()
        running.append((server, own))
        return server

    yield start
    for server, own in running:
        await server.stop(1)
        await own.close()


async def refused(asked: Awaitable[Reply]) -> KalendsError:
    with pytest.raises(KalendsError) as caught:
        await asked
    return caught.value


async def unheard(bus: Client, method: str) -> KalendsError:
    """What a call is refused with that nobody listens to. It asks twice and then waits for its deadline: a third try
    right before that could not be answered in time, which is another refusal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rpc, "_PAUSES", (0.01, 600.0))
        for seconds in PATIENCE:
            refusal = await refused(RpcClient(bus).request("probe", method, call(seconds)))
            if refusal.code != "timeout":  # where the machine is slow, the server's own answer may come too late
                break
        return refusal


async def test_a_call_arrives_whole_and_the_reply_comes_back_whole(bus: Client, serve: Serve) -> None:
    seen: list[Call] = []

    async def handle(got: Call) -> Reply:
        seen.append(got)
        return Reply(status=201, body=b'{"id":1}', etag='"1"', location="/x/1", position="p:1.2", headers={"A": "b"})

    await serve(make=handle)
    sent = call(
        method="POST", path="/bookings", query="a=%C3%A9", params={"id": "bkg_1"}, account_id="acc_1", mode="test",
        timezone="Europe/Madrid", actor=Actor("key", "key_1", "é ☃"), scopes=frozenset({"read", "write"}), request_id="r\r\nX: 1",
        idempotency_key="k", if_match='"3"', min_position="booking:1.2", frozen_clock=True, body=b'{"a": 1}',
    )  # fmt: skip
    reply = await RpcClient(bus).request("probe", "make", sent)
    assert reply == Reply(
        status=201, body=b'{"id":1}', etag='"1"', location="/x/1", position="p:1.2", headers={"A": "b"}
    )
    assert msgspec.structs.replace(seen[0], deadline=0.0, traceparent=None) == msgspec.structs.replace(
        sent, deadline=0.0
    )
    assert 0 < seen[0].deadline - time.time() <= 120


async def test_a_refusal_crosses_with_its_fields_and_a_fault_without_its_text(bus: Client, serve: Serve) -> None:
    async def refuse(_: Call) -> Reply:
        raise KalendsError(
            "slot_taken", "Gone.", (FieldError("#/start_at", "slot_taken", "is taken"),), 3, {"alternatives": [1]}
        )

    async def fault(_: Call) -> Reply:
        raise ValueError("the password is hunter2")

    await serve(refuse=refuse, fault=fault)
    client = RpcClient(bus)
    error = await refused(client.request("probe", "refuse", call()))
    assert (
        error.body()
        == KalendsError(
            "slot_taken", "Gone.", (FieldError("#/start_at", "slot_taken", "is taken"),), 3, {"alternatives": [1]}
        ).body()
    )
    error = await refused(client.request("probe", "fault", call()))
    assert error.code == "internal"
    assert "hunter2" not in str(error.body())


async def test_nobody_listening_is_unavailable_at_the_deadline_and_an_answer_once_somebody_does(
    bus: Client, serve: Serve
) -> None:
    began = time.monotonic()
    assert (await unheard(bus, "absent")).code == "unavailable"
    assert time.monotonic() - began > 1.5, "until its deadline somebody could still come"

    async def handle(_: Call) -> Reply:
        return Reply(body=b"late")

    asked = asyncio.create_task(RpcClient(bus).request("probe", "soon", call()))
    await asyncio.sleep(0.3)
    await serve(soon=handle)
    assert (await asked).body == b"late"


async def test_a_timed_out_write_is_not_tried_again_but_what_may_be_is(bus: Client, serve: Serve) -> None:
    times = 0
    over = asyncio.Event()

    async def slow_at_first(_: Call) -> Reply:
        nonlocal times
        times += 1
        if times == 1:
            await over.wait()
        return Reply(body=b"%d" % times)

    await serve(slow=slow_at_first)
    for seconds in PATIENCE:
        times = 0
        assert (await refused(RpcClient(bus).request("probe", "slow", call(seconds)))).code == "timeout"
        if times:  # else it did not even arrive in time
            break
    assert times == 1
    times = 0
    again = await RpcClient(bus).request("probe", "slow", call(12), retry=True)
    assert again.body == b"%d" % times
    assert times > 1
    over.set()


async def test_a_request_past_its_deadline_is_dropped_unheard(bus: Client, serve: Serve) -> None:
    heard: list[str] = []
    begun, free = asyncio.Event(), asyncio.Event()

    async def one_at_a_time(got: Call) -> Reply:
        heard.append(got.request_id)
        begun.set()
        await free.wait()
        return Reply()

    await serve(concurrency=1, work=one_at_a_time)
    client = RpcClient(bus)
    first = asyncio.create_task(client.request("probe", "work", call(request_id="first")))
    await begun.wait()
    assert (await refused(client.request("probe", "work", call(0.2, request_id="second")))).code == "timeout"
    free.set()
    await first
    await client.request("probe", "work", call(request_id="third"))
    assert heard == ["first", "third"]


async def test_requests_are_served_at_once_and_replicas_share_them(bus: Client, serve: Serve) -> None:
    served: list[str] = []
    together = asyncio.Event()

    def replica(name: str) -> Handler:
        async def hold(_: Call) -> Reply:
            served.append(name)
            if len(served) == 60:
                together.set()
            await together.wait()
            return Reply()

        return hold

    await serve(hold=replica("one"))
    await serve(hold=replica("two"))
    await asyncio.gather(*[RpcClient(bus).request("probe", "hold", call()) for _ in range(60)])
    assert set(served) == {"one", "two"}


async def test_a_large_reply_is_compressed_on_the_way(bus: Client, serve: Serve, nats_url: str) -> None:
    body = b'{"start_at":"2026-03-01T10:00:00Z"},' * 60_000  # 2.2 MB

    async def much(_: Call) -> Reply:
        return Reply(body=body, etag='"7"')

    await serve(much=much)
    before = bus.stats["in_bytes"]
    reply = await RpcClient(bus).request("probe", "much", call())
    assert (reply.body, reply.etag) == (body, '"7"')
    assert bus.stats["in_bytes"] - before < 100_000


async def test_stop_answers_what_is_in_flight_and_takes_no_more(bus: Client, serve: Serve) -> None:
    begun = 0
    all_begun, free = asyncio.Event(), asyncio.Event()

    async def hold(_: Call) -> Reply:
        nonlocal begun
        begun += 1
        if begun == 5:
            all_begun.set()
        await free.wait()
        return Reply(body=b"done")

    server = await serve(hold=hold)
    asked = [asyncio.create_task(RpcClient(bus).request("probe", "hold", call())) for _ in range(5)]
    await all_begun.wait()
    stopping = asyncio.create_task(server.stop(120))

    async def deaf() -> bool:
        return not server._subscriptions

    await eventually_async(deaf)
    assert (await unheard(bus, "hold")).code == "unavailable"
    assert not stopping.done()
    free.set()
    await stopping
    assert [(await one).body for one in asked] == [b"done"] * 5


async def test_stop_cancels_what_is_late(bus: Client, serve: Serve) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hold(_: Call) -> Reply:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Reply()

    server = await serve(hold=hold)
    asked = asyncio.create_task(RpcClient(bus).request("probe", "hold", call()))
    await begun.wait()
    await server.stop(0.01)
    assert ended.is_set(), "nothing is at work any more on what is closed next"
    asked.cancel()


async def test_ask_hands_on_the_call_it_stands_in(bus: Client, serve: Serve) -> None:
    class Question(msgspec.Struct):
        n: int

    async def handle(got: Call) -> Reply:
        n = msgspec.json.decode(got.body, type=Question).n
        assert (got.tenant, got.now, got.idempotency_key) == ("acc_1-live", NOW, None)
        return Reply(body=Question(n + 1))

    await serve(next=handle)
    answer = await RpcClient(bus).ask("probe", "next", Question(1), Question, within=call(idempotency_key="k"))
    assert answer == Question(2)


async def test_services_are_found_by_nats_micro(bus: Client, serve: Serve) -> None:
    async def handle(_: Call) -> Reply:
        return Reply()

    await serve(one=handle, two=handle)
    info = msgspec.json.decode((await bus.request("$SRV.INFO.kalends-probe", b"", timeout=20)).data)
    assert (info["name"], info["metadata"]["methods"]) == ("kalends-probe", "one,two")


async def test_a_trace_id_goes_along(bus: Client, serve: Serve) -> None:
    seen: list[str | None] = []

    async def handle(_: Call) -> Reply:
        seen.append(telemetry.trace_id())
        return Reply()

    await serve(one=handle)
    with telemetry.unit("test", "root") as unit:
        await RpcClient(bus).request("probe", "one", call())
    assert seen == [unit.trace_id]


async def test_the_server_of_nats_may_go_and_come_back(own_nats: Nats) -> None:
    health = Health()
    health.set("start", None)
    bus, own = await nats.connect(own_nats.url, "a", health), await nats.connect(own_nats.url, "b")

    async def handle(_: Call) -> Reply:
        return Reply(body=b"here")

    server = RpcServer(own, "probe", {"one": handle})
    await server.start()
    assert (await RpcClient(bus).request("probe", "one", call())).body == b"here"
    await asyncio.to_thread(own_nats.kill)

    async def lost() -> bool:
        return not health.ready

    await eventually_async(lost)
    assert health.problems() == {"nats": "disconnected"}
    assert (await refused(RpcClient(bus).request("probe", "one", call(2)))).code == "unavailable"
    asked = asyncio.create_task(RpcClient(bus).request("probe", "one", call(60)))
    await asyncio.to_thread(own_nats.start)
    assert (await asked).body == b"here"
    assert health.ready
    await bus.close()
    await own.close()
