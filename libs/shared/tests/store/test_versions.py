import msgspec
import pytest
from nats.aio.client import Client

from kalends_shared import dead_letters, event_store
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Database
from kalends_shared.upcasters import Document, Upcasters

from .helpers import append, call, envelopes, event, eventually, relay, running
from .sink import Sink, publish


async def test_a_newer_schema_version_pauses_and_a_later_release_goes_on(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    await append(db, "thg_0", 0)
    await append(db, "thg_0", 1, schema_version=3)
    await append(db, "thg_0", 2)
    old = sink.consumer(bus, context)
    async with running(relay(db, bus, context).run, old.run):
        await eventually(lambda: old.paused is not None)
        assert old.paused == "thing.created has schema version 3"
        assert len(await sink.ids()) == 1
        upcasters = Upcasters()
        upcasters.step("thing.created", 1)(lambda data, state: (data, state))
        upcasters.step("thing.created", 2)(lambda data, state: (data, state))
        async with running(sink.consumer(bus, context, upcasters=upcasters).run):
            await eventually(sink.whole)
    assert [row[0] for row in await db.pool.fetch("SELECT schema_version FROM effects ORDER BY seq")] == [1, 3, 3]
    assert await dead_letters.listed(db.pool) == []


def test_upcasters_raise_old_documents_step_by_step() -> None:
    upcasters = Upcasters()

    @upcasters.step("thing.created", 1)
    def listed(data: Document, state: Document) -> tuple[Document, Document]:
        return {"names": [data["name"]]}, state | {"v": 2}

    @upcasters.step("thing.created", 2)
    def counted(data: Document, state: Document) -> tuple[Document, Document]:
        return data | {"count": len(data["names"])}, state | {"v": 3}

    assert upcasters.current("thing.created") == 3
    assert upcasters.documents("thing.created", 1, b'{"name":"a"}', b"{}") == (
        3,
        b'{"names":["a"],"count":1}',
        b'{"v":3}',
    )
    assert upcasters.documents("thing.created", 3, b"{ }", b"{ }") == (3, b"{ }", b"{ }")
    with pytest.raises(ValueError, match="two steps"):
        upcasters.step("thing.created", 1)(listed)


async def test_append_with_old_versions_reaches_apply_raised(
    db: Database, bus: Client, source: str, sink: Sink
) -> None:
    upcasters = Upcasters()
    upcasters.step("thing.created", 1)(lambda data, state: (data | {"raised": True}, state))
    seen: list[bytes] = []

    async def apply(conn: object, events: list[Envelope]) -> None:
        seen.extend(bytes(one.data) for one in events)

    sink.apply = apply  # type: ignore[assignment]
    async with db.pool.acquire() as conn:
        await event_store.append(conn, call(), "thg_1", 0, [event(data={"a": 1})])
    await publish(bus, await envelopes(db, source), source)
    async with running(sink.consumer(bus, source, upcasters=upcasters).run):
        await eventually(lambda: bool(seen))
    assert [msgspec.json.decode(data) for data in seen] == [{"a": 1, "raised": True}]
