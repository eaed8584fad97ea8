"""Two commands at a time on one booking or hold, each pair that could conflict: one order of the two explains every end.

In half of the rounds both have decided on the same state before either commits (where one is a timer, the other before
the timer has fired); in the others they run as they come.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from booking_kit import misplaced

from kalends_booking.handlers import changes, holds, placing
from kalends_booking.handlers.context import Context
from kalends_booking.store import rebuild
from kalends_shared.contracts.availability import PaymentTerms
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database
from kalends_shared.testkit import scale

from .test_holds import hold, release
from .test_lives import patch
from .test_timers import advance, types
from .world import HALF_HOUR, NOON, NOW, AlwaysOpen, Client, event_type

ROUNDS = scale.count(reduced=4, full=40)
SECOND = timedelta(seconds=1)
Act = Callable[[Client, str], Awaitable[Any]]
OTHERS = ("hst_bob", "hst_cid")


def act(action: str, **body: Any) -> Act:
    return lambda client, one: client.act(one, action, body)


async def move(client: Client, one: str) -> Any:
    start = (await client.get(one))["start_at"]
    return await client.act(one, "reschedule", {"start_at": start.replace("2026-04", "2026-05")})


async def rename(client: Client, one: str) -> Any:
    return await patch(client, one, {"booker_name": "Ada King"})


async def convert(client: Client, one: str) -> Any:
    held = (await client.ask("get_hold", method="GET", params={"id": one})).body
    return await client.book(held["start_at"], hold_id=one)


async def clock(client: Client, one: str) -> Any:
    """The timer of whatever is due by the client's time."""
    await advance(client, client.now)


ASKED = {"requires_confirmation": True}
UNPAID = {"payment": PaymentTerms(amount=1, currency="EUR")}
# Settings of the event type; the two; at which time before the start (None: long before); what the two may come to.
# "ok ok" is listed as the order of events that it leaves, others as the codes in the order of the pair.
PAIRS: dict[str, tuple[dict[str, Any], Act, Act, timedelta | None, set[str]]] = {
    "approve, cancel": (ASKED, act("approve"), act("cancel"), None, {"approved cancelled", "invalid_state ok"}),
    "approve, decline": (ASKED, act("approve"), act("decline"), None, {"ok invalid_state", "invalid_state ok"}),
    "approve, approve": (ASKED, act("approve"), act("approve"), None, {"ok invalid_state", "invalid_state ok"}),
    "approve, its expiry": (ASKED, act("approve"), clock, SECOND, {"approved started", "approved", "invalid_state ok"}),
    "pay, its expiry": (
        UNPAID,
        act("payment", status="paid"),
        clock,
        SECOND,
        {"updated started", "updated", "declined updated"},
    ),
    "pay, cancel": (
        UNPAID,
        act("payment", status="paid"),
        act("cancel"),
        None,
        {"updated cancelled", "cancelled updated"},
    ),
    "pay, approve": (
        ASKED | UNPAID,
        act("payment", status="paid"),
        act("approve"),
        None,
        {"updated approved", "approved updated"},
    ),
    "cancel, cancel": ({}, act("cancel"), act("cancel"), None, {"ok invalid_state", "invalid_state ok"}),
    "reschedule, cancel": ({}, move, act("cancel"), None, {"rescheduled cancelled", "invalid_state ok"}),
    "reschedule, reassign": (
        {},
        move,
        act("reassign", host_id="hst_bob"),
        None,
        {"rescheduled reassigned", "reassigned rescheduled"},
    ),
    "reassign, cancel": (
        {},
        act("reassign", host_id="hst_bob"),
        act("cancel"),
        None,
        {"reassigned cancelled", "invalid_state ok"},
    ),
    "reassign, reassign": (
        {},
        act("reassign", host_id="hst_bob"),
        act("reassign", host_id="hst_bob"),
        None,
        {"ok invalid_state", "invalid_state ok"},
    ),
    "PATCH, cancel": ({}, rename, act("cancel"), None, {"updated cancelled", "cancelled updated"}),
    "complete, no-show": (
        {},
        act("complete"),
        act("no_show"),
        -SECOND,
        {"started completed no_show", "completed no_show", "invalid_state ok"},
    ),
    "reschedule, its start": (
        {},
        move,
        clock,
        SECOND,
        {"rescheduled", "started rescheduled"},
    ),
    "reschedule, its end": (
        {},
        move,
        clock,
        SECOND - HALF_HOUR,
        {"rescheduled", "started rescheduled", "invalid_state ok"},
    ),
    "cancel, its end": (
        {},
        act("cancel"),
        clock,
        SECOND - HALF_HOUR,
        {"started cancelled", "cancelled", "invalid_state ok"},
    ),
}


@pytest.fixture
async def pair(client: Client, quotes: AlwaysOpen) -> AsyncIterator[tuple[Client, Client]]:
    """Two instances of the service over one database."""
    other = await Database.connect(client.ctx.db.url, "booking", size=4)
    yield client, Client(Context(other, client.ctx.quotes, client.ctx.nudge))
    await other.close()


class Held:
    """Holds commits until so many commands have decided, or until it is let go."""

    def __init__(self, until: int) -> None:
        self._here, self._until = 0, until
        self._open = asyncio.Event()

    def let_go(self) -> None:
        self._open.set()

    def meet(self, commit: Any) -> Any:
        async def met(*args: Any, **kwargs: Any) -> Any:
            self._here += 1
            if self._here >= self._until:
                self._open.set()
            await self._open.wait()
            return await commit(*args, **kwargs)

        return met


async def race(one: Awaitable[Any], two: Awaitable[Any], held: Held | None, *, timer: bool) -> tuple[str, str]:
    """How each ended."""

    async def second() -> str:
        end = await told(two)
        if held is not None and timer:
            held.let_go()
        return end

    return await asyncio.gather(told(one), second())


async def told(doing: Awaitable[Any]) -> str:
    try:
        await doing
    except KalendsError as refusal:
        return refusal.code
    return "ok"


@pytest.mark.parametrize("name", PAIRS)
async def test_two_on_a_booking(
    pair: tuple[Client, Client], db: Database, quotes: AlwaysOpen, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, first, second, before, allowed = PAIRS[name]
    quotes.event_types["evt_visit"] = event_type("hst_ann", *OTHERS, assignment="any", **settings)
    quotes.event_types["evt_ann"] = event_type("hst_ann", **settings)
    ends: Counter[str] = Counter()
    for n in range(ROUNDS):
        start = NOON + timedelta(days=n)
        one = (await pair[0].book(start, host_id="hst_ann")).body["id"]
        pair[0].now = NOW if before is None else start - before
        pair[1].now = pair[0].now + (SECOND if clock is second else timedelta())
        made = len(await types(db, one))
        with monkeypatch.context() as patched:
            held = Held(3 if clock is second else 2) if n % 2 else None
            if held is not None:
                patched.setattr(changes, "commit", held.meet(changes.commit))
            said = await race(first(pair[0], one), second(pair[1], one), held, timer=clock is second)
        happened = " ".join(kind.partition(".")[2] for kind in (await types(db, one))[made:])
        end = happened if set(said) == {"ok"} else " ".join(said)
        assert end in allowed, (said, happened)
        ends[end] += 1
        pair[0].now = pair[1].now = NOW
        await pair[0].ask("advance_clock", {"now": None}, mode="test")
    assert await rebuild.rebuild(db, write=False) == []
    assert await misplaced(db) == []


HELD: dict[str, tuple[Act, Act, timedelta, set[str]]] = {
    "use, use": (convert, convert, timedelta(minutes=1), {"ok hold_expired", "hold_expired ok"}),
    "use, release": (convert, release, timedelta(minutes=1), {"ok not_found", "hold_expired ok"}),
    "use, its expiry": (convert, clock, SECOND, {"converted", "hold_expired ok"}),
    "release, its expiry": (release, clock, SECOND, {"released", "not_found ok"}),
}


@pytest.mark.parametrize("name", HELD)
async def test_two_on_a_hold(
    pair: tuple[Client, Client], db: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first, second, before, allowed = HELD[name]
    for n in range(ROUNDS):
        start = NOON + timedelta(days=n)
        one = (await hold(pair[0], start, ttl_seconds=300)).body["id"]
        pair[0].now = NOW + timedelta(seconds=300) - before
        pair[1].now = pair[0].now + (SECOND if clock is second else timedelta())
        with monkeypatch.context() as patched:
            held = Held(2 if convert is second else 3) if n % 2 and second in {convert, clock} else None
            if held is not None:
                patched.setattr(placing, "commit", held.meet(placing.commit))
                patched.setattr(holds, "commit", held.meet(holds.commit))
            said = await race(first(pair[0], one), second(pair[1], one), held, timer=clock is second)
        (kind,) = (await types(db, one))[1:]
        end = kind.partition(".")[2] if set(said) == {"ok"} else " ".join(said)
        assert end in allowed, (said, kind)
        free = kind != "hold.converted"
        pair[0].now = pair[1].now
        assert (await told(pair[0].book(start))) == ("ok" if free else "slot_taken")
        pair[0].now = pair[1].now = NOW
        await pair[0].ask("advance_clock", {"now": None}, mode="test")
    assert await rebuild.rebuild(db, write=False) == []
    assert await misplaced(db) == []
