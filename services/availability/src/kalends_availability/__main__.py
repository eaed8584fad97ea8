"""The availability service: settings -> adapters -> handlers -> serve."""

import asyncio
from collections.abc import Sequence
from functools import partial

from kalends_availability import rpc
from kalends_availability.domain import holiday
from kalends_availability.handlers.context import OWN, Context
from kalends_availability.projections import bookings, calendars
from kalends_availability.projections.followed import Followed
from kalends_availability.schema import SCHEMA
from kalends_availability.settings import AvailabilitySettings
from kalends_availability.store import objects
from kalends_availability.store.answers import Answers
from kalends_availability.store.replica import Changed, Replica
from kalends_shared import events_rpc, idempotency, positions, relay
from kalends_shared.backends import open_backends, serve
from kalends_shared.consumer import Consumer
from kalends_shared.relay import Relay
from kalends_shared.rpc import RpcClient
from kalends_shared.service import Service, run


async def main(service: Service[AvailabilitySettings]) -> None:
    settings = service.settings
    db, bus = await open_backends(service, SCHEMA)
    client = RpcClient(bus)

    replica = Replica(db, settings.memory_mb)
    await replica.sweep()
    await replica.listen(bus)
    service.supervise("sweep", replica.keep_swept)
    service.supervise("relay", Relay(OWN, settings.direct_url, SCHEMA.name, bus).run)
    service.supervise("prune answers", partial(idempotency.keep_pruned, db.pool))

    consumers = {}
    for source, effects in (("booking", bookings.apply), ("calendar", calendars.apply)):
        followed = Followed(effects, replica, bus)
        after = events_rpc.over_rpc(client, source)
        # A replay brings a lost commit back, so it need not wait for the disk.
        consumer = Consumer(OWN, source, db, bus, after, followed.apply, followed.after_commit, durable=False)
        consumers[source] = consumer
        service.supervise(f"consumer {source}", consumer.run)

    async def committed(changes: Sequence[Changed]) -> None:
        if changes:
            await replica.changed(bus, changes)
            await relay.nudge(bus, OWN)

    watches = {source: consumer.watch for source, consumer in consumers.items()}
    knows_bookings = partial(positions.caught_up, watches["booking"], events_rpc.last_over_rpc(client, "booking"))
    ctx = Context(db, replica, watches, knows_bookings, committed)

    methods = rpc.handlers(ctx, Answers(settings.memory_mb * 200_000)) | events_rpc.handlers(db, OWN)
    if await objects.holidays(db.pool):
        await asyncio.to_thread(holiday.load)
    await serve(service, bus, idempotency.first_answers(db, methods))


if __name__ == "__main__":
    run(OWN, AvailabilitySettings, main)
