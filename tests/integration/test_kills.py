"""kill -9 of every part in turn, under load: nothing acknowledged is lost, nothing is booked twice, every webhook arrives."""

import asyncio
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from harness import rebuilt
from harness.client import Client, slot, until
from harness.judge import Judge
from harness.sink import Sink
from harness.stack import SERVICES, Stack

HOSTS = 10
CLIENTS, FEW = 24, 4


class Load:
    """Books slot after slot from many clients until it is `over`; past `enough` of them only a few clients go on."""

    def __init__(self, api: Client, kinds: list[str]) -> None:
        self.api, self.kinds = api, kinds
        self.answers: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
        self.done = self.enough = 0
        self.over = False

    async def run(self) -> None:
        wanted = self.wanted()

        async def work(number: int) -> None:
            while not self.over:
                if number >= FEW and self.done >= self.enough:
                    await asyncio.sleep(0.05)
                    continue
                want = next(wanted)
                self.answers[want].append(await self.api.book(*want))
                self.done += 1

        await asyncio.gather(*(work(number) for number in range(CLIENTS)))

    def wanted(self) -> Iterator[tuple[str, str]]:
        """Every tenth slot is asked for twice at once, so that there is something to book twice."""
        every = ((kind, slot(n)) for n in itertools.count() for kind in self.kinds)
        for i, want in enumerate(every):
            yield from [want] * (2 if i % 10 == 0 else 1)

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
        await until(lambda: judge.behind(name, "booking"), 180, f"events that {name} has not heard of")
    else:
        await until(lambda: stuck_writes(api), 180, f"a booking that waits for {name}")
    for one in names:
        assert stack.kill(one) == frozen[one]
    for one, dead in frozen.items():
        await asyncio.to_thread(stack.wait_restarted, one, dead)


async def in_flight(api: Client, judge: Judge) -> bool:
    return bool(await judge.transactions() and api.outstanding)


async def kill_server(stack: Stack, api: Client, judge: Judge, name: str) -> None:
    if name == "nats":
        stack.freeze(name)
        await until(lambda: stuck_writes(api), 180, "a booking that waits for nats")
    else:
        await until(partial(in_flight, api, judge), 180, "a booking in flight, and an open transaction")
    await asyncio.to_thread(stack.wait_restarted, name, stack.kill(name))


async def kill_each_in_turn(stack: Stack, api: Client, judge: Judge, load: Load) -> list[str]:
    victims = [*SERVICES, "nats", "postgres"]
    running = asyncio.create_task(load.run())
    share = int(os.environ.get("KALENDS_TEST_BOOKINGS", "500")) // (len(victims) + 1)
    for victim in [*victims, None]:
        due = load.done + share
        load.enough = due + share
        await until(partial(load.reached, due), 180, f"bookings before the kill of {victim}")
        if victim is not None:
            await (kill_service if victim in SERVICES else kill_server)(stack, api, judge, victim)
    load.over = True
    await asyncio.wait_for(running, 240)
    return victims


async def caught_up(judge: Judge) -> bool:
    return not any([await judge.behind(name, "booking") for name in ("availability", "webhooks", "calendar_sync")])


@pytest.mark.timeout(1200)
async def test_kill_9_of_each_part_loses_nothing(stack: Stack, api: Client, receiver: Sink):
    receiver.delay = 0.01
    kinds = [await api.event_type() for _ in range(HOSTS)]
    hook = await api.ok("POST", "/webhooks", {"url": receiver.url, "events": ["booking.confirmed"]})
    judge = Judge(stack.database)
    load = Load(api, kinds)

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

    await until(all_received, 180, f"a webhook for each of {len(booked)} bookings")
    await until(partial(caught_up, judge), 120, "no consumer behind")
    assert await rebuilt.differences(stack.database) == {}
    await api.ok("DELETE", f"/webhooks/{hook['id']}")
    await judge.close()
