"""A random walk of commands over a real database, beside a model that is as simple as the rules read.

The model knows each booking's status, times, seats and host, and from these alone whether a slot is free; what the
service answers must be what the model says, after every step its read model must be what its events say, and places
must be those of the bookings and holds in force.
"""

import asyncio
import os
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from booking_kit import misplaced

from kalends_booking.store import rebuild
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database

from .test_holds import hold, release
from .test_timers import advance
from .world import HALF_HOUR, NOW, AlwaysOpen, Client, event_type

FULL = bool(os.environ.get("KALENDS_TEST_FULL"))
CAPACITY = 3
IN_FORCE = {"pending", "confirmed", "completed", "no_show", "active"}
TTL = 3600
DAY = timedelta(hours=24)


@dataclass
class Thing:
    """A booking or a hold, as the model has it."""

    kind: str
    start_at: datetime
    seats: int
    status: str
    expires_at: datetime | None = None
    completed_at: datetime = NOW
    no_show_at: datetime = NOW


@dataclass
class Model:
    now: datetime = NOW
    things: dict[str, Thing] = field(default_factory=dict)

    def free(self, kind: str, start_at: datetime, seats: int, besides: str | None = None) -> bool:
        """One host for both kinds: a group has room, or nobody is there at all."""
        there = [
            thing
            for id_, thing in self.things.items()
            if id_ != besides and thing.status in IN_FORCE and thing.start_at == start_at
        ]
        if not there:
            return True
        return (
            kind == "evt_group"
            and all(t.kind == kind for t in there)
            and sum(t.seats for t in there) + seats <= CAPACITY
        )

    def pass_time(self, to: datetime) -> None:
        self.now = to
        for thing in self.things.values():
            if thing.status == "active" and thing.expires_at is not None and thing.expires_at <= to:
                thing.status = "expired"
            elif thing.status == "pending" and thing.start_at <= to:
                thing.status = "declined"
            elif thing.status == "confirmed" and thing.start_at + HALF_HOUR <= to:
                thing.status = "completed"
                thing.completed_at = thing.start_at + HALF_HOUR


class Walk:
    """One random walk; `rng` is the only source of chance, so that a seed tells the whole story."""

    def __init__(self, client: Client, rng: random.Random) -> None:
        self.client, self.rng, self.model = client, rng, Model()
        self.log: list[str] = []

    @property
    def story(self) -> str:
        """How it came to this."""
        return "\n" + "\n".join(self.log)

    async def step(self) -> None:
        move = self.rng.choice(
            [
                self.book,
                self.book,
                self.hold,
                self.convert,
                self.release,
                self.act,
                self.act,
                self.reschedule,
                self.tick,
            ]
        )
        await move()

    async def said(self, coming: Any) -> tuple[str, Any]:
        try:
            reply = await coming
        except KalendsError as error:
            return error.code, error
        return "ok", reply.body

    def any(self, prefix: str) -> str | None:
        ids = [one for one in self.model.things if one.startswith(prefix)]
        return self.rng.choice(ids) if ids else None

    def start(self) -> datetime:
        """One of four half hours of the next noon."""
        noon = self.model.now.replace(hour=12, minute=0)
        return (noon if noon > self.model.now else noon + DAY) + HALF_HOUR * self.rng.randrange(4)

    def wanted(self) -> tuple[str, datetime, int]:
        kind = self.rng.choice(["evt_group", "evt_visit"])
        return kind, self.start(), self.rng.choice([1, 2]) if kind == "evt_group" else 1

    async def book(self) -> None:
        kind, start_at, seats = self.wanted()
        expected = "ok" if self.model.free(kind, start_at, seats) else "slot_taken"
        got, body = await self.said(self.client.book(start_at, event_type_id=kind, seats=seats))
        self.log.append(f"book {kind} {start_at:%H:%M} x{seats}: {got}")
        assert got == expected, self.story
        if got == "ok":
            status = "pending" if kind == "evt_group" else "confirmed"
            assert body["status"] == status
            self.model.things[body["id"]] = Thing(kind, start_at, seats, status)

    async def hold(self) -> None:
        kind, start_at, seats = self.wanted()
        expected = "ok" if self.model.free(kind, start_at, seats) else "slot_taken"
        got, body = await self.said(hold(self.client, start_at, event_type_id=kind, seats=seats, ttl_seconds=TTL))
        self.log.append(f"hold {kind} {start_at:%H:%M} x{seats}: {got}")
        assert got == expected, self.story
        if got == "ok":
            self.model.things[body["id"]] = Thing(
                kind, start_at, seats, "active", self.model.now + timedelta(seconds=TTL)
            )

    async def convert(self) -> None:
        one = self.any("hld_")
        if one is None:
            return
        held = self.model.things[one]
        expected = "ok" if held.status == "active" else "hold_expired"
        asked = self.client.book(held.start_at, event_type_id=held.kind, seats=held.seats, hold_id=one)
        got, body = await self.said(asked)
        self.log.append(f"convert {one[-4:]} ({held.status}): {got}")
        assert got == expected, self.story
        if got == "ok":
            held.status = "converted"
            status = "pending" if held.kind == "evt_group" else "confirmed"
            self.model.things[body["id"]] = Thing(held.kind, held.start_at, held.seats, status)

    async def release(self) -> None:
        one = self.any("hld_")
        if one is None:
            return
        held = self.model.things[one]
        got, _ = await self.said(release(self.client, one))
        self.log.append(f"release {one[-4:]} ({held.status}): {got}")
        assert got == ("ok" if held.status == "active" else "not_found"), self.story
        held.status = "released" if got == "ok" else held.status

    async def act(self) -> None:
        one = self.any("bkg_")
        if one is None:
            return
        thing = self.model.things[one]
        action = self.rng.choice(["approve", "decline", "cancel", "complete", "no_show", "undo_no_show"])
        begun = thing.status == "confirmed" and self.model.now >= thing.start_at
        lately = thing.status == "completed" and self.model.now <= thing.completed_at + DAY
        then = {
            "approve": {"pending": "confirmed"},
            "decline": {"pending": "declined"},
            "cancel": {"pending": "cancelled", "confirmed": "cancelled"},
            "complete": {"confirmed": "completed"} if begun else {},
            "no_show": {thing.status: "no_show"} if begun or lately else {},
            "undo_no_show": {"no_show": "back"} if self.model.now <= thing.no_show_at + DAY else {},
        }[action].get(thing.status)
        got, body = await self.said(self.client.act(one, action))
        self.log.append(f"{action} {one[-4:]} ({thing.status}): {got}")
        assert got == ("ok" if then else "invalid_state"), self.story
        if then is None:
            assert body.extra == {"state": thing.status}, self.story
            return
        if then == "back":
            then = body["status"]
            assert then in {"confirmed", "completed"}
        assert body["status"] == then, self.story
        if action == "complete":
            thing.completed_at = self.model.now
        elif action == "no_show":
            thing.no_show_at = self.model.now
        thing.status = then
        if then == "confirmed":
            self.model.pass_time(self.model.now)  # undone past its end, it completes by its timer
            await advance(self.client, self.model.now)

    async def reschedule(self) -> None:
        one = self.any("bkg_")
        if one is None:
            return
        thing, start_at = self.model.things[one], self.start()
        if thing.status not in {"pending", "confirmed"}:
            expected = "invalid_state"
        else:
            expected = "ok" if self.model.free(thing.kind, start_at, thing.seats, one) else "slot_taken"
        got, _ = await self.said(self.client.act(one, "reschedule", {"start_at": start_at}))
        self.log.append(f"reschedule {one[-4:]} ({thing.status}) to {start_at:%H:%M}: {got}")
        assert got == expected, self.story
        if got == "ok":
            thing.start_at = start_at
            self.model.pass_time(self.model.now)
            await advance(self.client, self.model.now)

    async def tick(self) -> None:
        later = self.model.now + self.rng.choice([timedelta(minutes=20), timedelta(hours=1), timedelta(hours=5), DAY])
        self.log.append(f"now {later:%d %H:%M}")
        self.model.pass_time(later)
        await advance(self.client, later)


@pytest.mark.parametrize("seed", range(40 if FULL else 6))
async def test_the_service_is_what_the_model_says(client: Client, db: Database, quotes: AlwaysOpen, seed: int) -> None:
    quotes.event_types["evt_group"] = event_type(id="evt_group", capacity=CAPACITY, requires_confirmation=True)
    walk = Walk(client, random.Random(seed))
    for _ in range(120 if FULL else 60):
        await walk.step()
        listed = await client.list("limit=100")
        assert {row["id"]: (row["status"], row["start_at"][:16]) for row in listed["data"]} == {
            one: (thing.status, f"{thing.start_at:%Y-%m-%dT%H:%M}")
            for one, thing in walk.model.things.items()
            if one.startswith("bkg_")
        }, walk.story
    await asyncio.sleep(0)
    assert await rebuild.rebuild(db) == [], walk.story
    assert await misplaced(db) == [], walk.story
