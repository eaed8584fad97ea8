"""The contract's table of actions and events, row by row: what is done by the public API, and what GET /changes tells of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness.client import ALWAYS, Client, booking, until
from harness.stack import Stack

HALF = timedelta(minutes=30)
MONEY: dict[str, Any] = {"amount": 1000, "currency": "EUR"}


class World:
    """A test-mode account whose clock stands still until it is moved; `acts` on the thing that a row is about."""

    def __init__(self, api: Client, after: str) -> None:
        self.api, self._after = api, after

    async def now(self) -> datetime:
        return datetime.fromisoformat((await self.api.ok("GET", "/test-clock"))["now"])

    async def soon(self) -> datetime:
        """The second half hour from now."""
        now = await self.now()
        return now.replace(minute=0, second=0, microsecond=0) + 3 * HALF

    async def advance_to(self, at: str) -> None:
        seconds = (datetime.fromisoformat(at) - await self.now()).total_seconds()
        await self.api.ok("POST", "/test-clock", {"advance_seconds": int(seconds) + 1})

    async def booked(self, **settings: Any) -> Any:
        kind = await self.api.event_type(**settings)
        return await self.api.ok("POST", "/bookings", booking(kind, _text(await self.soon())))

    async def act(self, one: Any, action: str, body: Any = None) -> Any:
        return await self.api.ok("POST", f"/bookings/{one['id']}/{action}", body)

    async def told(self, thing: str) -> list[Any]:
        """Every event about a thing, in the order of the feed."""
        found, after = [], self._after
        while True:
            page = await self.api.ok("GET", "/changes", params={"limit": 100, "after": after})
            found += [
                row
                for row in page["data"]
                if any(isinstance(o, dict) and o.get("id") == thing for o in row["data"].values())
            ]
            after = page["next_cursor"]
            if not page["has_more"]:
                return found


@pytest.fixture
async def world(stack: Stack, api: Client) -> AsyncIterator[World]:
    made = await api.ok("POST", "/api-keys", {"name": "emitted", "mode": "test", "scopes": ["write"]})
    async with Client(stack.urls, made["secret"]) as test:
        start = await test.ok("GET", "/changes", params={"after": "latest"})
        await test.ok("POST", "/test-clock", {"freeze_at": _text(datetime.now(UTC) + timedelta(minutes=1))})
        try:
            yield World(test, start["next_cursor"])
        finally:
            await test.ok("POST", "/test-clock", {"release": True})


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Action = Callable[[World], Awaitable[Any]]


async def created(w: World) -> Any:
    return await w.booked()


async def asked(w: World) -> Any:
    return await w.booked(requires_confirmation=True, confirmation_expires_minutes=30)


async def to_pay(w: World) -> Any:
    return await w.booked(payment={**MONEY, "expires_minutes": 30})


async def to_pay_and_asked(w: World) -> Any:
    return await w.booked(requires_confirmation=True, payment={**MONEY, "expires_minutes": 30})


async def started(w: World) -> Any:
    one = await created(w)
    await w.advance_to(one["start_at"])
    return one


async def ended(w: World) -> Any:
    one = await created(w)
    await w.advance_to(one["end_at"])
    return one


async def expired(w: World, one: Any) -> None:
    await w.advance_to(_text(await w.now() + timedelta(minutes=31)))


async def rescheduled(w: World, one: Any) -> None:
    at = datetime.fromisoformat(one["start_at"]) + 4 * HALF
    await w.act(one, "reschedule", {"start_at": _text(at)})


async def of_two_hosts(w: World) -> Any:
    hosts = [await w.api.host(ALWAYS), await w.api.host(ALWAYS)]
    return await w.booked(hosts=[{"host_id": host} for host in hosts], assignment="round_robin")


async def reassigned(w: World, one: Any) -> None:
    kind = await w.api.ok("GET", f"/event-types/{one['event_type_id']}")
    other = next(host["host_id"] for host in kind["hosts"] if host["host_id"] not in one["host_ids"])
    await w.act(one, "reassign", {"host_id": other})


async def patched(w: World, one: Any) -> None:
    await w.api.ok("PATCH", f"/bookings/{one['id']}", {"metadata": {"k": 1}})


async def patched_to_the_same(w: World, one: Any) -> None:
    await w.api.ok("PATCH", f"/bookings/{one['id']}", {"metadata": {}, "booker_name": one["booker_name"]})


async def no_show_undone(w: World, one: Any) -> None:
    await w.api.ok("DELETE", f"/bookings/{one['id']}/no-show")


def doing(action: str, body: Any = None) -> Callable[[World, Any], Awaitable[None]]:
    async def do(w: World, one: Any) -> None:
        await w.act(one, action, body)

    return do


paid = doing("payment", {"status": "paid", **MONEY})
cancelled = doing("cancel", {"reason": "why"})

# What there is first, what is done with it, and all that is told of it.
ROWS: dict[str, tuple[Action, list[Callable[[World, Any], Awaitable[None]]], str]] = {
    "create": (created, [], "created confirmed"),
    "create, to be confirmed": (asked, [], "created pending"),
    "create, to be paid": (to_pay, [], "created pending"),
    "approve": (asked, [doing("approve")], "created pending confirmed"),
    "payment": (to_pay, [paid], "created pending payment.updated confirmed"),
    "payment of a confirmed one": (created, [paid], "created confirmed payment.updated"),
    "payment, then approval": (
        to_pay_and_asked,
        [paid, doing("approve")],
        "created pending payment.updated confirmed",
    ),
    "approval, then payment": (
        to_pay_and_asked,
        [doing("approve"), paid],
        "created pending payment.updated confirmed",
    ),
    "payment that failed": (to_pay, [doing("payment", {"status": "failed"})], "created pending payment.updated"),
    "a recording": (
        started,
        [doing("recordings", {"url": "https://example.com/r"})],
        "created confirmed meeting.started recording.ready",
    ),
    "decline": (asked, [doing("decline", {"reason": "no"})], "created pending declined"),
    "expired request": (asked, [expired], "created pending declined"),
    "expired payment": (to_pay, [expired], "created pending declined"),
    "reschedule": (created, [rescheduled], "created confirmed rescheduled updated"),
    "reassign": (of_two_hosts, [reassigned], "created confirmed reassigned updated"),
    "PATCH": (created, [patched], "created confirmed updated"),
    "PATCH that changes nothing": (created, [patched_to_the_same, cancelled], "created confirmed cancelled"),
    "cancel": (created, [cancelled], "created confirmed cancelled"),
    "a confirmed booking's start": (started, [], "created confirmed meeting.started"),
    "its end": (ended, [], "created confirmed meeting.started meeting.ended completed"),
    "complete": (started, [doing("complete")], "created confirmed meeting.started completed"),
    "no-show": (started, [doing("no-show")], "created confirmed meeting.started no_show"),
    "no-show undone": (
        started,
        [doing("no-show"), no_show_undone],
        "created confirmed meeting.started no_show updated",
    ),
}


@pytest.mark.parametrize("row", ROWS)
async def test_an_action_emits(world: World, row: str) -> None:
    first, then, names = ROWS[row]
    want = [name if "." in name else f"booking.{name}" for name in names.split()]
    one = await first(world)
    for act in then:
        await act(world, one)

    async def told() -> list[Any]:
        rows = await world.told(one["id"])
        return rows if len(rows) >= len(want) else []

    rows = await until(told, 180, f"{len(want)} events")
    assert [event["type"] for event in rows] == want
    assert len({event["id"] for event in rows}) == len(rows)
    shown = await world.api.ok("GET", f"/bookings/{one['id']}")
    assert rows[-1]["data"]["booking"] == shown, "as it is after the action"
    first_of_all = rows[0]["data"]["booking"]
    assert (first_of_all["status"], first_of_all["version"]) == (one["status"], one["version"])


async def test_a_hold_that_runs_out_is_told_and_one_released_is_not(world: World) -> None:
    kind = await world.api.event_type()
    start = await world.soon()
    holds = [
        await world.api.ok(
            "POST", "/holds", {"event_type_id": kind, "start_at": _text(start + n * HALF), "ttl_seconds": 60}
        )
        for n in range(2)
    ]
    await world.api.ok("DELETE", f"/holds/{holds[0]['id']}")
    await world.advance_to(_text(await world.now() + timedelta(minutes=2)))

    async def told() -> list[Any]:
        return await world.told(holds[1]["id"])

    assert [row["type"] for row in await until(told, 180, "hold.expired")] == ["hold.expired"]
    assert await world.told(holds[0]["id"]) == []


async def test_own_blocks_and_a_persons_erasure_are_told(world: World, api: Client, stack: Stack) -> None:
    start = await world.soon()
    body = {
        "host_id": await world.api.host(),
        "title": "Lunch",
        "start_at": _text(start),
        "end_at": _text(start + HALF),
    }
    block = await world.api.ok("POST", "/events", body)
    await world.api.ok("PATCH", f"/events/{block['id']}", {"title": "Dinner"})
    await world.api.ok("DELETE", f"/events/{block['id']}")

    async def told() -> list[Any]:
        rows = await world.told(block["id"])
        return rows if len(rows) == 3 else []

    rows = await until(told, 180, "three events")
    assert [row["type"] for row in rows] == ["event.created", "event.updated", "event.deleted"]
    assert [set(row["data"]) for row in rows] == [{"event"}] * 3
    one = await created(world)
    made = await api.ok("POST", "/api-keys", {"name": "eraser", "mode": "test", "scopes": ["admin"]})
    async with Client(stack.urls, made["secret"]) as admin:
        await admin.ok("DELETE", f"/people/{one['person_id']}")

    async def erased() -> list[Any]:
        return await world.told(one["person_id"])

    (row,) = await until(erased, 180, "person.erased")
    assert (row["type"], row["data"]) == ("person.erased", {"person": {"id": one["person_id"]}})
