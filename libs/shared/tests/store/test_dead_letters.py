import asyncpg
import msgspec
import pytest
from nats.aio.client import Client
from prometheus_client import REGISTRY

from kalends_shared import dead_letters, event_store
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection, Database
from kalends_shared.projection import BURY, RETRY_PAGE

from .helpers import TENANT, append, call, envelopes, event, eventually, fill, relay, running, stored_ids, tailed
from .sink import Sink, publish


async def test_an_event_that_cannot_be_applied_parks_its_stream_and_the_rest_goes_on(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    await fill(db, 30, streams=3)
    ids = await stored_ids(db)
    bad = ids[3]  # thg_0, version 2
    sink.broken = {bad}
    consumer = sink.consumer(bus, context)
    rows = await db.pool.fetch("SELECT id, stream_id FROM events ORDER BY tx, position")
    healthy = [row["id"] for row in rows if row["stream_id"] != "thg_0" or row["id"] == ids[0]]

    async with running(relay(db, bus, context).run, consumer.run):
        await eventually(lambda: _same(sink, healthy))
        later = await append(db, "thg_0", 10)
        assert await consumer.watch.wait(later.at, 60)
        letters = await dead_letters.listed(db.pool)
        assert [letter.status for letter in letters] == ["failed"] + ["parked"] * 9
        assert letters[0].event_id == bad
        assert "DivisionByZero" in str(letters[0].error)
        assert {letter.stream_id for letter in letters} == {"thg_0"}

        # Asked for before it can succeed, a retry changes nothing but the count.
        assert await dead_letters.request_retry(db.pool, tenant=TENANT, stream_id="thg_0") == 10
        await eventually(lambda: _attempts(db, 2))
        assert [letter.retry_requested for letter in await dead_letters.listed(db.pool)] == [False] * 10

        sink.broken = set()
        await dead_letters.request_retry(db.pool, source=context)
        await eventually(lambda: _letters(db, 0))
        last = await append(db, "thg_0", 11)
        assert await consumer.watch.wait(last.at, 60)
    versions = await db.pool.fetch("SELECT version FROM effects WHERE stream_id = 'thg_0' ORDER BY seq")
    assert [row["version"] for row in versions] == list(range(1, 13))
    assert sorted(await sink.ids()) == sorted(await stored_ids(db)) == sorted(sink.told)


async def test_a_retry_waits_for_the_source_when_that_is_away(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    await fill(db, 3, streams=1)
    ids = await stored_ids(db)
    sink.broken = {ids[1]}
    async with running(relay(db, bus, context).run, sink.consumer(bus, context).run):
        await eventually(lambda: _letters(db, 2))
        sink.away, sink.broken, asked = True, set(), len(sink.asked)
        await dead_letters.request_retry(db.pool)
        await eventually(lambda: len(sink.asked) > asked)
        assert len(await dead_letters.listed(db.pool)) == 2
        await append(db, "thg_9", 0)
        await eventually(lambda: len(sink.told) == 2)
        sink.away = False
        await eventually(lambda: _letters(db, 0))
    assert sorted(await sink.ids()) == sorted(await stored_ids(db))


async def test_what_was_parked_after_a_retry_was_asked_for_follows_it(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    await fill(db, RETRY_PAGE, streams=1)
    sink.broken = {(await stored_ids(db))[0]}
    async with running(relay(db, bus, context).run, sink.consumer(bus, context).run):
        await eventually(lambda: _letters(db, RETRY_PAGE))
    await dead_letters.request_retry(db.pool)
    await append(db, "thg_0", RETRY_PAGE)
    (late,) = (await tailed(db))[RETRY_PAGE:]
    await db.pool.execute(BURY, context, *late.at, TENANT, "thg_0", late.id, late.type, "parked", None)
    sink.broken = set()
    async with running(sink.consumer(bus, context).run):
        await eventually(lambda: _letters(db, 0))
    assert await sink.whole()


async def test_how_many_there_are_is_told_also_when_one_is_given_up(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    await append(db, "thg_0", 0)
    sink.broken = set(await stored_ids(db))

    def told() -> float | None:
        return REGISTRY.get_sample_value("kalends_dead_letters", {"source": context})

    async with running(relay(db, bus, context).run, sink.consumer(bus, context).run):
        await eventually(lambda: told() == 1)
        (letter,) = await dead_letters.listed(db.pool)
        async with db.pool.acquire() as conn:
            assert await dead_letters.discard(conn, context, letter.tx, letter.position)
        await eventually(lambda: told() == 0)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO people VALUES ($1)", "CheckViolation"),
        ("SELECT $1::int", "DataError: invalid input for query argument"),
        ("SELECT $1::text::int", "InvalidTextRepresentation"),
    ],
)
async def test_a_dead_letter_holds_nothing_of_what_the_event_carries(
    db: Database, bus: Client, source: str, sink: Sink, statement: str, error: str
) -> None:
    async with db.pool.acquire() as conn:
        await event_store.append(conn, call(), "thg_1", 0, [event(data={"email": "ada@example.test"})])
    (message,) = await envelopes(db, source)
    people = {"per_1.1": msgspec.Raw(b'{"email":"ada@example.test"}')}
    await publish(bus, [msgspec.structs.replace(message, people=people)], source)

    async def apply(conn: Connection, events: list[Envelope]) -> None:
        await conn.execute("CREATE TEMP TABLE people (email text CHECK (email = '')) ON COMMIT DROP")
        await conn.execute(statement, msgspec.json.decode(events[0].data)["email"])

    sink.apply = apply  # type: ignore[method-assign]
    async with running(sink.consumer(bus, source).run):
        await eventually(lambda: _letters(db, 1))
    row = await db.pool.fetchval("SELECT d::text FROM dead_letters d")
    assert error in row
    assert "ada@" not in row


async def test_a_discarded_event_frees_what_waits_behind_it(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    await fill(db, 3, streams=1)
    ids = await stored_ids(db)
    sink.broken = {ids[0]}
    async with running(relay(db, bus, context).run, sink.consumer(bus, context).run):
        await eventually(lambda: _letters(db, 3))
        first = (await dead_letters.listed(db.pool))[0]
        async with db.pool.acquire() as conn:
            assert not await dead_letters.discard(conn, "other", first.tx, first.position)
            assert await dead_letters.discard(conn, first.source, first.tx, first.position)
        await eventually(lambda: _letters(db, 0))
    assert await sink.ids() == ids[1:]


async def _same(sink: Sink, ids: list[str]) -> bool:
    return await sink.ids() == ids


async def _attempts(db: Database, attempts: int) -> bool:
    return (await dead_letters.listed(db.pool))[0].attempts == attempts


async def _letters(db: Database, count: int) -> bool:
    return len(await dead_letters.listed(db.pool)) == count


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.SerializationError("could not serialize"),
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.LockNotAvailableError("lock timeout"),
        asyncpg.InterfaceError("closed"),
        ConnectionResetError(),
        TimeoutError(),
        KalendsError("unavailable"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_may_pass_is_tried_again_and_never_dead_lettered(
    db: Database, bus: Client, source: str, sink: Sink, error: Exception
) -> None:
    await fill(db, 8)
    await publish(bus, await envelopes(db, source), source)
    sink.failures = [error] * 6
    async with running(sink.consumer(bus, source).run):
        await eventually(sink.whole)
    assert await dead_letters.listed(db.pool) == []
