"""The calendar-sync service: settings -> adapters -> handlers -> serve."""

import zoneinfo
from collections.abc import Sequence
from functools import partial
from typing import Final

from kalends_calendar_sync import consumers, rpc
from kalends_calendar_sync.handlers.calendars import Calendars
from kalends_calendar_sync.handlers.events import Events
from kalends_calendar_sync.hosts import HostZone
from kalends_calendar_sync.pull import Puller
from kalends_calendar_sync.push import Pusher
from kalends_calendar_sync.reach import Reach
from kalends_calendar_sync.schema import SCHEMA
from kalends_calendar_sync.settings import CalendarSyncSettings
from kalends_calendar_sync.upkeep import keep_counted, keep_pruned
from kalends_calendar_sync.worker import Worker
from kalends_shared import events_rpc, idempotency, relay
from kalends_shared.backends import open_backends, serve
from kalends_shared.consumer import Consumer
from kalends_shared.contracts.events import Envelope
from kalends_shared.relay import Relay
from kalends_shared.rpc import RpcClient
from kalends_shared.seal import Keyring
from kalends_shared.service import Service, run

OWN = "calendar"

PACE_SECONDS: Final = 0.1


async def main(service: Service[CalendarSyncSettings]) -> None:
    zoneinfo.reset_tzpath(())  # the pinned tzdata package's zones, never the machine's
    settings = service.settings
    db, bus = await open_backends(service, SCHEMA)
    client = RpcClient(bus)
    nudge = partial(relay.nudge, bus, OWN)

    keyring = Keyring.parse(settings.secret_key)
    policy = settings.policy()
    reach = Reach(policy, keyring, settings.calendars_timeout_seconds)
    lease, room = settings.calendars_lease_seconds, settings.calendars_concurrency

    pusher = Pusher(db, reach, lease=lease)
    writing = Worker(pusher.claim, pusher.work, room)
    puller = Puller(db, reach, poll=settings.calendars_poll_seconds, lease=lease, nudge=nudge, edited=writing.wake)
    reading = Worker(puller.claim, puller.work, room)

    async def changed() -> None:
        reading.wake()
        writing.wake()
        await nudge()

    async def told(_: Sequence[Envelope]) -> None:
        reading.wake()
        writing.wake()

    service.supervise("relay", Relay(OWN, settings.direct_url, SCHEMA.name, bus).run)
    service.supervise("prune answers", partial(idempotency.keep_pruned, db.pool))
    service.supervise("prune bookings", partial(keep_pruned, db))
    service.supervise("counts", partial(keep_counted, db))
    watches = {}
    for source, apply in (("booking", consumers.apply_booking), ("availability", consumers.apply_availability)):
        after = events_rpc.over_rpc(client, source)
        # A calendar server takes longer than this pause; each look at what is to be written costs more than an event.
        consumer = Consumer("calendar_sync", source, db, bus, after, apply, told, pace=PACE_SECONDS, durable=False)
        watches[source] = consumer.watch
        service.supervise(f"consumer {source}", consumer.run)
    service.supervise("reading", reading.run)
    service.supervise("writing", writing.run)

    host_zone = HostZone(client)
    methods = rpc.handlers(
        Calendars(db, keyring, policy, watches, host_zone, changed), Events(db, watches, host_zone, changed)
    ) | events_rpc.handlers(db, OWN)
    await serve(service, bus, idempotency.first_answers(db, methods))


if __name__ == "__main__":
    run(SCHEMA.name, CalendarSyncSettings, main)
