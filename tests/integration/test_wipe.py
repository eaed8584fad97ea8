"""JetStream wiped while the system runs: it is filled again, and whoever reads it ends where it would have ended."""

import asyncio
from collections import Counter

import nats
from harness import rebuilt
from harness.client import Client, slot, until
from harness.judge import Judge
from harness.sink import Sink
from harness.stack import Stack
from nats.aio.client import Client as Bus

from kalends_shared.jetstream import api as jetstream
from kalends_shared.jetstream import stream_name

HOSTS, EACH, WIPES = 8, 25, 3


async def messages(bus: Bus) -> int:
    """How many events the stream holds; 0 while there is none."""
    try:
        return (await bus.jetstream(timeout=30).stream_info(stream_name("booking"))).state.messages
    except nats.js.errors.NotFoundError:
        return 0


async def test_a_wiped_stream_is_filled_again_and_nobody_notices(stack: Stack, api: Client, receiver: Sink):
    kinds = [await api.event_type() for _ in range(HOSTS)]
    hook = await api.ok("POST", "/webhooks", {"url": receiver.url, "events": ["*"]})
    bus = await nats.connect(stack.env["KALENDS_NATS_URL"])
    judge = Judge(stack.database)
    made: list[str] = []
    wipes = 0

    async def load(kind: str) -> None:
        n = 0
        while n < EACH or wipes < WIPES:
            answer = await api.book(kind, slot(n))
            made.append(answer.json()["id"])
            n += 1

    async def wipe() -> None:
        nonlocal wipes
        while wipes < WIPES:
            assert await until(lambda: messages(bus), 180, "a stream with events in it")
            await jetstream(bus, f"STREAM.DELETE.{stream_name('booking')}", seconds=30)
            wipes += 1
            await asyncio.sleep(0.3)

    await asyncio.gather(wipe(), *(load(kind) for kind in kinds))

    async def caught_up() -> bool:
        events = await judge.value("SELECT count(*) FROM booking.events")
        behind = [await judge.behind(name, "booking") for name in ("availability", "webhooks", "calendar_sync")]
        return not any(behind) and await messages(bus) == events

    await until(caught_up, 120, "a full stream and no consumer behind")

    async def all_received() -> bool:
        return all(set(made) <= receiver.bookings(f"booking.{event}").keys() for event in ("created", "confirmed"))

    await until(all_received, 120, "both webhooks of every booking")
    ours = set(made)
    public = await judge.fetch("SELECT id, type, stream_id FROM webhooks.public_events WHERE stream_id = ANY($1)", made)
    assert Counter(row["type"] for row in public) == {"booking.created": len(ours), "booking.confirmed": len(ours)}
    assert await rebuilt.differences(stack.database) == {}
    await api.ok("DELETE", f"/webhooks/{hook['id']}")
    await bus.close()
    await judge.close()
