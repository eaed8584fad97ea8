"""kill -9 of every part in turn, under load: each event reaches each subscription, and few of them twice."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kalends_shared import events_rpc, migrations
from kalends_shared.event_store import VersionConflict
from kalends_shared.projection import passing
from kalends_shared.rpc import RpcServer
from kalends_shared.servers import Nats, Postgres
from kalends_shared.testkit import scale
from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.schema import SCHEMA

from . import rig as rigs
from .making import person, state
from .receiver import Got, Receiver
from .rig import BOOKING, Rig

ROLES = ("dispatch", "dispatch", "deliver", "deliver")


class Processes:
    """The service as an operator runs it, each role twice; what is killed is started again."""

    def __init__(self, postgres: Postgres, nats: Nats, logs: Path) -> None:
        self.environment = os.environ | {
            "KALENDS_DATABASE_URL": postgres.url,
            "KALENDS_NATS_URL": nats.url,
            "KALENDS_SECRET_KEY": rigs.KEY,
            "KALENDS_WEBHOOKS_ALLOW_HTTP": "true",
            "KALENDS_ALLOW_ADDRESSES": "127.0.0.0/8",
            "KALENDS_LOG_LEVEL": "warning",
        }
        self.logs = logs
        self.running: list[tuple[str, asyncio.subprocess.Process]] = []

    async def start(self, role: str) -> None:
        with (self.logs / f"{role}.log").open("ab") as log:
            environment = self.environment | {"KALENDS_ROLE": role}
            command = (sys.executable, "-m", "kalends_webhooks")
            process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log)
        self.running.append((role, process))

    async def kill(self, role: str) -> None:
        """All of a role, since nobody can tell which of them holds the work; and starts as many again."""
        dead = [process for one, process in self.running if one == role]
        for process in dead:
            process.kill()
        for process in dead:
            await process.wait()
        self.running = [(one, process) for one, process in self.running if one != role]
        for _ in dead:
            await self.start(role)

    async def end(self) -> None:
        for _, process in self.running:
            process.kill()
            await process.wait()


@asynccontextmanager
async def everything(postgres: Postgres, nats: Nats, logs: Path) -> AsyncIterator[tuple[Rig, Processes]]:
    await migrations.migrate(postgres.url, [SCHEMA, BOOKING])
    rig = await Rig.open(postgres.url, nats.url, context="booking")
    source = RpcServer(rig.bus, "booking", events_rpc.handlers(rig.booking, "booking", rig._enrich))
    await source.start()
    processes = Processes(postgres, nats, logs)
    try:
        for role in ROLES:
            await processes.start(role)
        async with rig.running(rig.guarded_relay()):
            yield rig, processes
    finally:
        await processes.end()
        await source.stop()
        await rig.close()


async def book(rig: Rig) -> str:
    """A booking that is there, whatever happens to the database meanwhile."""
    made = state()
    rig.people[made.person_version] = person(made)
    while True:
        try:
            await rig.append("booking.created", made)
        except VersionConflict:
            return made.id  # an earlier try had gone through unheard
        except Exception as error:
            if not passing(error):
                raise
            await asyncio.sleep(0.1)
        else:
            return made.id


@pytest.mark.timeout(scale.count(reduced=300, full=1200))
async def test_each_event_reaches_each_subscription_whatever_dies(
    own_pg: Postgres, own_nats: Nats, tmp_path: Path, receiver: Receiver
):
    paths = [f"/{n}" for n in range(scale.count(reduced=4, full=20))]
    total = scale.count(reduced=240, full=5000)
    busy = 0

    def answer(_: Got) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, b""

    receiver.answer = answer
    receiver.delay = 0.02
    async with everything(own_pg, own_nats, tmp_path) as (rig, processes):
        for path in paths:
            await rig.subscribe(receiver.url(path), ["booking.confirmed"])
        booked: list[str] = []

        async def load() -> None:
            for _ in range(total):
                booked.append(await book(rig))
                await asyncio.sleep(0.01)

        async def in_flight() -> bool:
            return receiver.answering > 0

        loading = asyncio.create_task(load())
        for n, victim in enumerate(("deliver", "dispatch", "nats", "postgres")):
            share = total * (n + 1) // 6

            async def reached(share: int = share) -> bool:
                return len(booked) >= share

            await eventually_async(reached, scale.count(reduced=120, full=600))
            await eventually_async(in_flight, 30)
            busy += receiver.answering
            if victim in ROLES:
                await processes.kill(victim)
            else:
                server = {"nats": own_nats, "postgres": own_pg}[victim]
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
        await loading
        want = {(booking, path) for booking in booked for path in paths}

        def got() -> Counter[tuple[str, str]]:
            return Counter((one.json["data"]["booking"]["id"], one.path) for one in receiver.got)

        async def all_came() -> bool:
            return len(receiver.got) >= len(want) and got().keys() >= want

        await eventually_async(all_came, scale.count(reduced=90, full=600))
    came = got()
    assert came.keys() == want
    assert busy >= 4, "each kill found deliveries in flight"
    duplicates = sum(came.values()) - len(came)
    # In a short run what the kills cut off is more than a hundredth of all.
    assert duplicates <= max(len(want) // 100, 2 * busy + 20), (
        f"{duplicates} of {len(want)}, {busy} in flight at the kills"
    )
    stable = {(one.json["data"]["booking"]["id"], one.headers["webhook-id"]) for one in receiver.got}
    assert len(stable) == len(booked), "an event keeps its id"
