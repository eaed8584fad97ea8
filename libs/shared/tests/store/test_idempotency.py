import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from kalends_shared import event_store, idempotency
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import FieldError, KalendsError
from kalends_shared.db import Connection, Database
from kalends_shared.idempotency import idempotent, request_hash

from .helpers import call, event


def keyed(body: bytes = b'{"name":"x"}', key: str = "key-1", **fields: Any) -> Call:
    return call(body=body, idempotency_key=key, **fields)


class Maker:
    """A command that appends to a new stream each time, and counts how often it ran."""

    def __init__(self, refusal: KalendsError | None = None) -> None:
        self.ran = 0
        self.refusal = refusal

    async def __call__(self, conn: Connection) -> Reply:
        self.ran += 1
        await event_store.append(conn, call(), f"thg_{self.ran}", 0, [event()])
        if self.refusal is not None:
            raise self.refusal
        body = b'{"id":"thg_%d","secret":"s3cr3t","n":1.50}' % self.ran
        return Reply(
            status=201, body=body, etag='"1"', location="/things/1", position="booking:1.2", headers={"X-A": "b"}
        )


async def effects(db: Database) -> int:
    count: int = await db.pool.fetchval("SELECT count(*) FROM events")
    return count


async def test_the_first_answer_is_given_again_byte_for_byte_with_its_secret_null(db: Database) -> None:
    make = Maker()
    first = await idempotent(db, keyed(), make)
    again = await idempotent(db, keyed(b'{ "name": "x" }'), make)
    assert first.body == b'{"id":"thg_1","secret":"s3cr3t","n":1.50}'
    assert again.body == b'{"id":"thg_1","secret":null,"n":1.50}'
    assert (again.status, again.etag, again.location, again.position) == (201, '"1"', "/things/1", "booking:1.2")
    assert again.headers == {"X-A": "b", "Idempotent-Replayed": "true"}
    assert "Idempotent-Replayed" not in first.headers
    assert await effects(db) == 1


async def test_without_a_key_each_runs(db: Database) -> None:
    make = Maker()
    for _ in range(2):
        await idempotent(db, call(), make)
    assert await effects(db) == 2


@pytest.mark.parametrize(
    "other", [{"tenant": "acc_test-test"}, {"method": "PUT"}, {"path": "/others"}, {"key": "key-2"}], ids=str
)
async def test_a_key_belongs_to_tenant_method_and_path(db: Database, other: dict[str, str]) -> None:
    make = Maker()
    await idempotent(db, keyed(), make)
    await idempotent(db, keyed(**other), make)
    assert make.ran == 2


async def test_another_body_is_refused(db: Database) -> None:
    await idempotent(db, keyed(), Maker())
    with pytest.raises(KalendsError) as refused:
        await idempotent(db, keyed(b'{"name":"y"}'), Maker())
    assert refused.value.code == "idempotency_key_reused"


async def test_the_operations_own_409_is_stored_whole_and_has_no_effects(db: Database) -> None:
    fields = (FieldError("#/start_at", "slot_taken", "Taken.", "busy"),)
    refusal = KalendsError("slot_taken", "Gone.", fields, extra={"alternatives": ["2026-04-10T09:00:00Z"]})
    with pytest.raises(KalendsError) as first:
        await idempotent(db, keyed(request_id="req_first"), Maker(refusal))
    assert first.value.headers == {}
    make = Maker()
    with pytest.raises(KalendsError) as again:
        await idempotent(db, keyed(), make)
    assert (again.value.code, again.value.detail, again.value.fields) == ("slot_taken", "Gone.", fields)
    assert (again.value.extra, again.value.headers) == (first.value.extra, {"Idempotent-Replayed": "true"})
    assert again.value.extra == {"alternatives": ["2026-04-10T09:00:00Z"], "request_id": "req_first"}
    assert (make.ran, await effects(db)) == (0, 0)


@pytest.mark.parametrize(
    "code", ["not_found", "validation_failed", "version_mismatch", "unavailable", "slot_not_offered"]
)
async def test_other_refusals_leave_the_key_free(db: Database, code: str) -> None:
    with pytest.raises(KalendsError):
        await idempotent(db, keyed(), Maker(KalendsError(code)))
    assert (await idempotent(db, keyed(), Maker())).headers == {"X-A": "b"}


async def test_a_failure_leaves_the_key_free_and_no_effects(db: Database) -> None:
    async def broken(conn: Connection) -> Reply:
        await Maker()(conn)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await idempotent(db, keyed(), broken)
    assert await effects(db) == 0
    assert (await idempotent(db, keyed(), Maker())).status == 201


async def test_a_used_key_is_told_before_what_is_wrong_with_the_request(db: Database) -> None:
    """The thing has gone since, and another body is wrong in itself."""
    make, refusal = Maker(), KalendsError("not_found")

    async def create(asked: Call) -> Reply:
        if make.ran:
            raise refusal
        return await idempotent(db, asked, make)

    handle = idempotency.first_answers(db, {"create": create})["create"]
    first = await handle(keyed())
    assert (first.status, first.headers) == (201, {"X-A": "b"})
    again = await handle(keyed())
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")
    for other, code in (
        (keyed(b'{"name":"y"}'), "idempotency_key_reused"),
        (keyed(key="key-2"), "not_found"),
        (call(), "not_found"),
        (keyed(method="PATCH"), "not_found"),
    ):
        with pytest.raises(KalendsError) as caught:
            await handle(other)
        assert caught.value.code == code
    refusal = KalendsError("invalid_state")
    with pytest.raises(KalendsError, match="invalid_state"):
        await handle(keyed())


@pytest.mark.parametrize("refusing", [False, True])
async def test_fifty_at_once_have_one_effect(db: Database, refusing: bool) -> None:
    make = Maker(KalendsError("slot_taken") if refusing else None)
    turned_away = asyncio.Event()
    await asyncio.gather(*(db.pool.execute("SELECT pg_sleep(0.1)") for _ in range(8)))  # opens the whole pool

    async def slow(conn: Connection) -> Reply:
        await turned_away.wait()
        return await make(conn)

    async def send() -> str:
        try:
            reply = await idempotent(db, keyed(), slow)
        except KalendsError as refusal:
            turned_away.set()
            return f"{refusal.code} {refusal.retry_after}"
        return str(reply.headers.get("Idempotent-Replayed"))

    answers = await asyncio.gather(*(send() for _ in range(50)))
    assert await effects(db) == (0 if refusing else 1)
    assert any(answer == "idempotency_in_flight 1" for answer in answers)
    if not refusing:
        assert answers.count("None") == make.ran == 1


TAKEN = KalendsError("slot_taken")


async def unhurried(conn: Connection) -> None:
    """A transaction that a test holds open may take its time."""
    await conn.execute("SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")


async def told(coming: Awaitable[Reply]) -> tuple[str | int, bool]:
    """What a caller hears: the status or the refusal's code, and whether it is a stored answer."""
    try:
        reply = await coming
    except KalendsError as refusal:
        return refusal.code, refusal.headers == idempotency.REPLAYED
    return reply.status, "Idempotent-Replayed" in reply.headers


async def refuse(conn: Any, refusal: KalendsError = TAKEN, body: bytes = keyed().body) -> Reply:
    return await idempotency.refuse(conn, keyed(body), request_hash(body), refusal)


async def test_a_refusal_gives_way_to_the_answer_stored_before_it(db: Database) -> None:
    """The key is free between a refused transaction's end and the storing of its refusal."""
    await idempotent(db, keyed(), Maker())
    assert await told(refuse(db.pool)) == (201, True)
    assert await told(refuse(db.pool, body=b'{"name":"y"}')) == ("idempotency_key_reused", False)


async def test_a_refusal_is_not_stored_while_a_retry_is_at_work(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the retry would do its work, and the key would tell ever after that nothing was done."""
    refused, may_store, storing = asyncio.Event(), asyncio.Event(), idempotency.refuse
    make = Maker()

    async def later(*args: Any) -> Reply:
        refused.set()
        await may_store.wait()
        return await storing(*args)

    monkeypatch.setattr(idempotency, "refuse", later)
    first = asyncio.create_task(told(idempotent(db, keyed(), Maker(TAKEN))))
    await refused.wait()

    async def meanwhile(conn: Connection) -> Reply:
        await unhurried(conn)
        may_store.set()
        assert await first == ("idempotency_in_flight", False)
        return await make(conn)

    assert await told(idempotent(db, keyed(), meanwhile)) == (201, False)
    assert await told(idempotent(db, keyed(), make)) == (201, True)
    assert (make.ran, await effects(db)) == (1, 1)


async def test_nothing_is_done_under_a_key_whose_refusal_is_being_stored(db: Database) -> None:
    make = Maker()
    async with db.transaction() as conn:
        await unhurried(conn)
        assert await told(refuse(conn)) == ("slot_taken", False)
        assert await told(idempotent(db, keyed(), make)) == ("idempotency_in_flight", False)
    assert await told(idempotent(db, keyed(), make)) == ("slot_taken", True)
    assert (make.ran, await effects(db)) == (0, 0)


async def test_of_two_refusals_the_first_stored_is_told_to_both(db: Database) -> None:
    assert await told(refuse(db.pool)) == ("slot_taken", False)
    assert await told(refuse(db.pool, KalendsError("limit_reached"))) == ("slot_taken", True)


async def test_a_refusal_that_was_never_stored_binds_nobody(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the process died between the two."""

    async def dies(*_: Any) -> Reply:
        raise ConnectionResetError

    monkeypatch.setattr(idempotency, "refuse", dies)
    with pytest.raises(ConnectionResetError):
        await idempotent(db, keyed(), Maker(TAKEN))
    assert await told(idempotent(db, keyed(), Maker())) == (201, False)


async def test_a_request_that_is_wrong_by_now_is_not_told_so_while_its_first_is_at_work(db: Database) -> None:
    async def gone(_: Call) -> Reply:
        raise KalendsError("not_found")

    handle = idempotency.first_answers(db, {"create": gone})["create"]
    async with db.transaction() as conn:
        await unhurried(conn)
        assert await idempotency.begin(conn, keyed(), request_hash(keyed().body)) is None
        assert await told(handle(keyed())) == ("idempotency_in_flight", False)
    assert await told(handle(keyed())) == ("not_found", False)


async def test_answers_are_kept_two_days(db: Database) -> None:
    await idempotent(db, keyed(key="old"), Maker())
    await db.pool.execute("UPDATE idempotency SET created_at = now() - interval '49 hours'")
    await idempotent(db, keyed(key="young"), _nothing)
    assert await idempotency.prune(db.pool) == 1
    assert [row["key"] for row in await db.pool.fetch("SELECT key FROM idempotency")] == ["young"]


async def _nothing(conn: Connection) -> Reply:
    return Reply(status=204)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"", b"{}"),
        (b" \n", b"{}"),
        (b'{"a":1,"b":[1,2]}', b'{ "b" : [1.0, 2e0], "a" : 1 }'),
        (b'{"a":"\\u00e9"}', '{"a":"é"}'.encode()),
    ],
)
def test_bodies_compare_as_parsed(one: bytes, other: bytes) -> None:
    assert request_hash(one) == request_hash(other)


@pytest.mark.parametrize(
    ("one", "other"), [(b"{}", b"[]"), (b'{"a":1}', b'{"a":"1"}'), (b'{"a":[1,2]}', b'{"a":[2,1]}')]
)
def test_bodies_that_differ_are_told_apart(one: bytes, other: bytes) -> None:
    assert request_hash(one) != request_hash(other)


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b'"\xed\xa0\x80"', b"[" * 20_000, b'{"a":1e400}'],
    ids=["open", "bytes", "surrogate", "deep", "number"],
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(KalendsError) as refused:
        request_hash(body)
    assert refused.value.code == "malformed"
