"""kill -9 of every part in turn, under load: nothing acknowledged is lost, nothing is booked twice, every webhook arrives."""

import asyncio
import os
from collections import Counter
from functools import partial
from typing import Any

import pytest
from harness import rebuilt
from harness.client import Client, slot, until
from harness.judge import Judge
from harness.sink import Sink
from harness.stack import SERVICES, Stack

HOSTS = 10
CLIENTS = 24


class Load:
    """Books the same slots twice over from many clients, at a pace that the kills can be spread over."""

    def __init__(self, api: Client, kinds: list[str], each: int) -> None:
        self.api = api
        self.wanted = [(kind, slot(n)) for n in range(each) for kind in kinds]
        self.answers: dict[tuple[str, str], list[Any]] = {want: [] for want in self.wanted}
        self.done = 0

    async def run(self) -> None:
        # Every tenth slot is asked for twice at once, so that there is something to book twice.
        queue = [want for i, want in enumerate(self.wanted) for _ in range(2 if i % 10 == 0 else 1)]

        async def work() -> None:
            while queue:
                want = queue.pop(0)
                self.answers[want].append(await self.api.book(*want))
                self.done += 1

        await asyncio.gather(*(work() for _ in range(CLIENTS)))

    async def reached(self, count: int) -> bool:
        return self.done >= count

    def booked(self) -> dict[str, tuple[str, str]]:
        """Id of each acknowledged booking -> what was wanted."""
        return {a.json()["id"]: want for want, all_ in self.answers.items() for a in all_ if a.status_code == 201}


async def stuck_writes(api: Client) -> bool:
    return api.stuck(0.3) > 0


async def kill_service(stack: Stack, api: Client, judge: Judge, name: str) -> None:
    """Freezes every replica, sees that work is waiting for them, and only then kills them."""
    names = [name] + [f"{name}-{n}" for n in range(2, stack.replicas + 1)]
    frozen = {one: stack.freeze(one) for one in names}
    if name in {"webhooks", "calendar_sync"}:
        await until(lambda: judge.behind(name, "booking"), 20, f"events that {name} has not heard of")
    else:
        await until(lambda: stuck_writes(api), 20, f"a booking that waits for {name}")
    for one in names:
        assert stack.kill(one) == frozen[one]
    for one, dead in frozen.items():
        await asyncio.to_thread(stack.wait_restarted, one, dead)


async def kill_server(stack: Stack, api: Client, judge: Judge, name: str) -> None:
    if name == "nats":
        stack.freeze(name)
        await until(lambda: stuck_writes(api), 20, "a booking that waits for nats")
    else:
        await until(judge.transactions, 20, "an open transaction")
        assert api.outstanding, "a booking in flight"
    await asyncio.to_thread(stack.wait_restarted, name, stack.kill(name))


async def kill_each_in_turn(stack: Stack, api: Client, judge: Judge, load: Load) -> list[str]:
    victims = [*SERVICES, "nats", "postgres"]
    running = asyncio.create_task(load.run())
    total = len(load.wanted)
    for i, victim in enumerate(victims):
        due = total * (i + 1) // (len(victims) + 1)
        await until(partial(load.reached, due), 120, f"bookings before the kill of {victim}")
        assert not running.done(), f"the load ended before {victim} was killed"
        await (kill_service if victim in SERVICES else kill_server)(stack, api, judge, victim)
    await asyncio.wait_for(running, 180)
    return victims


async def caught_up(judge: Judge) -> bool:
    return not any([await judge.behind(name, "booking") for name in ("availability", "webhooks", "calendar_sync")])


@pytest.mark.timeout(600)
async def test_kill_9_of_each_part_loses_nothing(stack: Stack, api: Client, receiver: Sink):
    receiver.delay = 0.01
    kinds = [await api.event_type() for _ in range(HOSTS)]
    hook = await api.ok("POST", "/webhooks", {"url": receiver.url, "events": ["booking.confirmed"]})
    judge = Judge(stack.database)
    load = Load(api, kinds, int(os.environ.get("KALENDS_TEST_BOOKINGS", "500")) // HOSTS)

    await kill_each_in_turn(stack, api, judge, load)

    codes = Counter(a.json().get("code", a.status_code) for all_ in load.answers.values() for a in all_)
    assert set(codes) <= {201, "slot_taken"}, codes
    assert all(sum(a.status_code == 201 for a in all_) == 1 for all_ in load.answers.values()), codes
    booked = load.booked()
    latest = await judge.bookings()
    for one, (kind, start) in booked.items():
        got = await api.ok("GET", f"/bookings/{one}")
        assert (got["status"], got["event_type_id"], got["start_at"]) == ("confirmed", kind, start)
        assert (latest[one]["status"], latest[one]["start_at"]) == ("confirmed", start)
    assert await judge.overlaps() == []

    async def all_received() -> bool:
        return booked.keys() <= receiver.bookings("booking.confirmed").keys()

    await until(all_received, 90, f"a webhook for each of {len(booked)} bookings")
    await until(partial(caught_up, judge), 30, "no consumer behind")
    assert await rebuilt.differences(stack.database) == {}
    await api.ok("DELETE", f"/webhooks/{hook['id']}")
    await judge.close()
