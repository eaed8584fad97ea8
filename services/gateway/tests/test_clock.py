"""The test clock: kept here, stamped on every call, moved through the booking service."""

import uuid
from datetime import UTC, datetime, timedelta

import msgspec
from gateway_kit import Api, Keyed, Serve, problem

from kalends_gateway.store import clocks
from kalends_shared.contracts.accounts import ClockMove, ClockMoved
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database


def iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


async def done(_: Call) -> Reply:
    return Reply(body=b"{}")


async def test_frozen_advanced_and_released(keyed: Keyed, serve: Serve) -> None:
    moves = await serve("booking", advance_clock=done)
    calls = await serve("availability", get_host=done)
    test, live = await keyed("write", mode="test"), await keyed("write")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    try:
        frozen = await test("POST", "/test-clock", {"freeze_at": iso(at)})
        assert (frozen.status_code, frozen.json()) == (200, {"now": iso(at)})
        assert (await test("GET", "/test-clock")).json() == {"now": iso(at)}
        for _ in range(2):
            await test("GET", "/hosts/hst_1")
            assert (calls[-1].now, calls[-1].frozen_clock) == (at, True)
        await live("GET", "/hosts/hst_1")
        assert not calls[-1].frozen_clock
        assert calls[-1].now < at
        advanced = await test("POST", "/test-clock", {"advance_seconds": 3600})
        assert advanced.json() == {"now": iso(at + timedelta(hours=1))}
        await test("GET", "/hosts/hst_1")
        assert calls[-1].now == at + timedelta(hours=1)
    finally:
        released = await test("POST", "/test-clock", {"release": True})
    assert (released.status_code, released.json()) == (200, {"now": None})
    assert (await test("GET", "/test-clock")).json() == {"now": None}
    await test("GET", "/hosts/hst_1")
    assert not calls[-1].frozen_clock
    later = at + timedelta(hours=1)
    assert [msgspec.json.decode(call.body, type=ClockMove) for call in moves] == [
        ClockMove(was=None, now=at), ClockMove(was=at, now=later), ClockMove(was=later, now=None),
    ]  # fmt: skip
    assert {call.tenant[-5:] for call in moves} == {"-test"}


async def test_frozen_at_the_moment_that_the_client_takes_for_now(keyed: Keyed, serve: Serve) -> None:
    """Whole seconds, and the way to here, make of it a moment that has passed."""
    await serve("booking", advance_clock=done)
    test = await keyed("write", mode="test")
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=2)
    try:
        assert (await test("POST", "/test-clock", {"freeze_at": iso(at)})).json() == {"now": iso(at)}
        problem(
            await test("POST", "/test-clock", {"freeze_at": iso(at - timedelta(seconds=1))}),
            422,
            "validation_failed",
            "#/freeze_at",
        )
    finally:
        await test("POST", "/test-clock", {"release": True})


async def test_a_read_can_wait_for_what_a_move_has_fired(keyed: Keyed, serve: Serve) -> None:
    async def fired(_: Call) -> Reply:
        return Reply(body=ClockMoved(position="booking:7.3"))

    await serve("booking", advance_clock=fired)
    test = await keyed("write", mode="test")
    once = {"Idempotency-Key": str(uuid.uuid4())}
    for _ in range(2):
        released = await test("POST", "/test-clock", {"release": True}, headers=once)
        assert released.headers["kalends-position"] == "booking:7.3"


async def test_the_clock_is_held_for_as_long_as_firing_takes(database_url: str) -> None:
    db = await Database.connect(database_url, "gateway", size=1)
    timeout = "SHOW idle_in_transaction_session_timeout"
    async with db.transaction() as conn:
        await clocks.lock(conn, "acc_1-test")
        assert await conn.fetchval(timeout) == "0"
    assert await db.pool.fetchval(timeout) == "2s"
    await db.close()


async def test_keys_expire_by_the_time_that_it_is(keyed: Keyed, serve: Serve) -> None:
    await serve("booking", advance_clock=done)
    test, now = await keyed("admin", mode="test"), datetime.now(UTC)
    try:
        await test("POST", "/test-clock", {"freeze_at": iso(now + timedelta(days=2))})
        made = await test("POST", "/api-keys", {"name": "For a day", "expires_at": iso(now + timedelta(days=1))})
        assert made.status_code == 201, made.text
        past = await test("POST", "/api-keys", {"name": "Gone", "expires_at": iso(now - timedelta(days=1))})
        problem(past, 422, "validation_failed", "#/expires_at")
    finally:
        await test("POST", "/test-clock", {"release": True})


async def test_a_live_key_has_none(admin: Api) -> None:
    for method, body in (("GET", None), ("POST", {"release": True})):
        problem(await admin(method, "/test-clock", body), 404, "not_found")


async def test_what_cannot_be_asked_of_it(keyed: Keyed, serve: Serve) -> None:
    moves = await serve("booking", advance_clock=done)
    test = await keyed("write", mode="test")
    now = datetime.now(UTC)
    for body, pointer in (
        ({"advance_seconds": "x"}, "#/advance_seconds"), ({"advance_seconds": 0}, "#/advance_seconds"), ({}, "#/freeze_at"), ({"release": False}, "#/release"),
        ({"freeze_at": iso(now), "release": True}, "#/release"), ({"freeze_at": iso(now - timedelta(hours=1))}, "#/freeze_at"), ({"x": 1}, "#/x"),
    ):  # fmt: skip
        problem(await test("POST", "/test-clock", body), 422, "validation_failed", pointer)
    document = problem(await test("POST", "/test-clock", {"advance_seconds": 5}), 409, "invalid_state")
    assert document["state"] == "running"
    assert not moves


async def test_the_clock_stands_where_booking_could_not_fire(keyed: Keyed, serve: Serve) -> None:
    async def fail(_: Call) -> Reply:
        raise KalendsError("unavailable")

    await serve("booking", advance_clock=fail)
    test = await keyed("write", mode="test")
    problem(
        await test("POST", "/test-clock", {"freeze_at": iso(datetime.now(UTC) + timedelta(hours=1))}),
        503,
        "unavailable",
    )
    assert (await test("GET", "/test-clock")).json() == {"now": None}


async def test_a_repeated_advance_is_one(keyed: Keyed, serve: Serve) -> None:
    moves = await serve("booking", advance_clock=done)
    test = await keyed("write", mode="test")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await test("POST", "/test-clock", {"freeze_at": iso(at)})
    try:
        once = {"Idempotency-Key": str(uuid.uuid4())}
        answers = [await test("POST", "/test-clock", {"advance_seconds": 60}, headers=once) for _ in range(3)]
        assert {a.json()["now"] for a in answers} == {iso(at + timedelta(seconds=60))}
        assert len(moves) == 2
    finally:
        await test("POST", "/test-clock", {"release": True})
