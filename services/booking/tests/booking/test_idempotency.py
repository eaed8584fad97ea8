"""Idempotency-Key on booking's POSTs: stored in the transaction of the effects."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from kalends_booking.handlers.context import Context
from kalends_booking.store.commit import COMMIT
from kalends_shared import idempotency
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.quotes import Alternatives, AlternativesRequest, Refusal
from kalends_shared.db import Database

from .world import HALF_HOUR, NOON, TENANT, AlwaysOpen, Client, event_type, refusal


async def test_a_key_is_required(client: Client) -> None:
    assert (await refusal(client.ask("create_booking", {}))).code == "idempotency_key_required"


async def test_the_same_request_gives_the_first_answer(client: Client, quotes: AlwaysOpen) -> None:
    first = await client.book(key="k")
    asked = quotes.asked
    again = await client.book(key="k")
    assert (again.status, again.body, again.etag, again.location) == (201, first.body, first.etag, first.location)
    assert again.position == first.position is not None
    assert again.headers == {"Idempotent-Replayed": "true"}
    assert quotes.asked == asked


async def test_another_body_is_refused(client: Client) -> None:
    await client.book(key="k")
    assert (await refusal(client.book(NOON + HALF_HOUR, key="k"))).code == "idempotency_key_reused"


async def test_fifty_at_once_make_one_booking_by_two_instances(client: Client, db: Database) -> None:
    other = await Database.connect(db.url, "booking", size=6)
    ctx = client.ctx
    two = Client(Context(other, ctx.quotes, ctx.nudge))

    async def once(who: Client) -> str:
        try:
            reply = await who.book(key="k")
        except KalendsError as error:
            return error.code
        assert reply.headers.get("Idempotent-Replayed") or reply.position
        return str(reply.body["id"])

    try:
        ends = Counter(await asyncio.gather(*(once((client, two)[n % 2]) for n in range(50))))
    finally:
        await other.close()
    del ends["idempotency_in_flight"]
    assert len(ends) == 1
    assert len((await client.list())["data"]) == 1


async def test_its_own_refusal_is_the_answer_ever_after(client: Client) -> None:
    made = (await client.book()).body
    first = await refusal(client.book(key="k"))
    await client.act(made["id"], "cancel")
    again = await refusal(client.book(key="k"))
    assert (again.code, again.extra, again.headers) == ("slot_taken", first.extra, {"Idempotent-Replayed": "true"})


async def test_what_is_no_409_leaves_the_key_free(client: Client) -> None:
    assert (await refusal(client.book(key="k", booker_email="nobody"))).status == 422
    assert (await refusal(client.book(key="k", event_type_id="evt_none"))).status == 422
    assert (await client.book(key="k")).status == 201


async def test_actions_too(client: Client) -> None:
    made = (await client.book()).body
    first = await client.act(made["id"], "cancel", {}, key="k")
    again = await client.act(made["id"], "cancel", b"", key="k")
    assert (again.status, again.body, again.etag) == (200, first.body, first.etag)
    assert again.position == first.position is not None
    assert (await refusal(client.act(made["id"], "cancel", {"reason": "x"}, key="k"))).code == "idempotency_key_reused"
    refused = await refusal(client.act(made["id"], "cancel", {}, key="other"))
    assert (refused.code, refused.extra["state"]) == ("invalid_state", "cancelled")


class Gate(AlwaysOpen):
    """Availability that keeps a refused request waiting for its alternatives, so: between its refusal and its storing."""

    def __init__(self, quotes: AlwaysOpen) -> None:
        super().__init__(*quotes.event_types.values())
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def alternatives(self, call: Call, request: AlternativesRequest) -> Alternatives:
        self.reached.set()
        await self.open.wait()
        return await super().alternatives(call, request)


class Halfway:
    """A database whose commits stop between taking their key and doing their work."""

    def __init__(self, db: Database, key: tuple[str, str, str, str]) -> None:
        self._db, self._key = db, key
        self.pool = self
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        if sql != COMMIT:
            return await self._db.pool.fetchrow(sql, *args)
        async with self._db.transaction() as conn:
            await conn.execute("SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
            begun = await conn.fetchrow(idempotency.BEGIN, *self._key)
            assert begun["outcome"] == "new"
            self.reached.set()
            await self.go.wait()
            return await conn.fetchrow(sql, *args)

    async def fetch(self, sql: str, *args: Any) -> Any:
        return await self._db.pool.fetch(sql, *args)


Ask = Callable[[Client], Awaitable[Reply]]
DAILY = {"rrule": "FREQ=DAILY;COUNT=3"}


class Refusals:
    """What may be refused and then possible again: sets the stage, and gives the request, its path, and what ends it."""

    @staticmethod
    async def _freed(client: Client, request: Ask, path: str = "/bookings", **taken: Any) -> Any:
        made = (await client.book(**taken)).body["id"]

        async def free() -> None:
            await client.act(made, "cancel")

        return request, path, free

    async def one(self, client: Client, _: Gate) -> Any:
        return await self._freed(client, lambda who: who.book(key="k"))

    async def quoted(self, _: Client, gate: Gate) -> Any:
        gate.refusal = Refusal(code="slot_taken", rule="busy", detail="Taken.")

        async def free() -> None:
            gate.refusal = None

        return lambda who: who.book(key="k"), "/bookings", free

    async def hold(self, client: Client, _: Gate) -> Any:
        body = {"event_type_id": "evt_visit", "start_at": NOON}
        return await self._freed(
            client, lambda who: who.ask("create_hold", body, path="/holds", idempotency_key="k"), "/holds"
        )

    async def series(self, client: Client, _: Gate) -> Any:
        return await self._freed(client, lambda who: who.book(recurrence=DAILY, key="k"))

    async def group(self, client: Client, gate: Gate) -> Any:
        gate.event_types["evt_visit"] = event_type(capacity=3)
        return await self._freed(client, lambda who: who.book(seats=2, key="k"), seats=2)

    async def either(self, client: Client, gate: Gate) -> Any:
        """Round robin, whose refusal is judged by what was looked at before the commit."""
        gate.event_types["evt_visit"] = event_type("hst_ann", "hst_bob")
        await client.book()
        return await self._freed(client, lambda who: who.book(key="k"))

    async def moved(self, client: Client, _: Gate) -> Any:
        one = (await client.book(NOON - HALF_HOUR)).body["id"]
        move = {"start_at": NOON}
        path = f"/bookings/{one}/reschedule"
        return await self._freed(client, lambda who: who.act(one, "reschedule", move, key="k"), path)


@pytest.fixture(params=["one", "quoted", "hold", "series", "group", "either", "moved"])
async def race(request: Any, db: Database, client: Client, quotes: AlwaysOpen) -> "Race":
    gate = Gate(quotes)
    first = Client(Context(db, gate, client.ctx.nudge, alternatives_seconds=600))
    ask, path, free = await getattr(Refusals(), request.param)(first, gate)
    halfway = Halfway(db, (TENANT, "POST", path, "k"))
    race = Race(db, gate, halfway, first, Client(Context(halfway, gate, client.ctx.nudge)), ask)  # type: ignore[arg-type]
    race.waiting = asyncio.create_task(_told(ask(first)))
    await gate.reached.wait()
    await free()
    race.before = await race.effects()
    return race


class Race:
    """A request that was refused and whose refusal is about to be stored, and its retry, for which all is free again."""

    waiting: "asyncio.Task[Told]"
    before: int

    def __init__(self, db: Database, gate: Gate, halfway: Halfway, first: Client, retry: Client, ask: Ask) -> None:
        self.db, self.gate, self.halfway, self.first, self.retry, self.ask = db, gate, halfway, first, retry, ask

    async def effects(self) -> int:
        count: int = await self.db.pool.fetchval("SELECT count(*) FROM events")
        return count

    async def refused(self) -> "Told":
        """What the first request hears once its refusal may be stored."""
        self.gate.open.set()
        return await self.waiting

    async def again(self) -> "Told":
        return await _told(self.ask(self.first))


Told = tuple[str | int, bytes, bool]


async def _told(coming: Awaitable[Reply]) -> Told:
    """The status or code, the answer, and whether it is a stored one."""
    try:
        reply = await coming
    except KalendsError as refusal:
        return refusal.code, msgspec.json.encode(refusal.extra), refusal.headers == idempotency.REPLAYED
    return reply.status, msgspec.json.encode(reply.body), reply.headers == idempotency.REPLAYED


async def test_a_refusal_is_not_stored_while_its_retry_takes_the_place(race: Race) -> None:
    retry = asyncio.create_task(_told(race.ask(race.retry)))
    await race.halfway.reached.wait()
    assert (await race.refused())[0] == "idempotency_in_flight"
    race.halfway.go.set()
    status, body, _ = await retry
    assert status in {200, 201}
    assert await race.again() == (status, body, True)
    assert await race.effects() > race.before


async def test_a_refusal_gives_way_to_the_place_that_its_retry_has_taken(race: Race) -> None:
    race.halfway.go.set()
    status, body, _ = await _told(race.ask(race.retry))
    assert status in {200, 201}
    made = await race.effects()
    assert await race.refused() == await race.again() == (status, body, True)
    assert await race.effects() == made > race.before


async def test_once_a_refusal_is_stored_its_retry_takes_nothing(race: Race) -> None:
    race.halfway.go.set()
    code, extra, _ = await race.refused()
    assert code == "slot_taken"
    assert await _told(race.ask(race.retry)) == await race.again() == (code, extra, True)
    assert await race.effects() == race.before
