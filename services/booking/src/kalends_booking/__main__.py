"""The booking service: settings -> adapters -> handlers -> serve."""

from functools import partial

from kalends_booking import rpc
from kalends_booking.handlers import timers
from kalends_booking.handlers.context import Context
from kalends_booking.quotes import RpcQuotes
from kalends_booking.schema import SCHEMA
from kalends_booking.settings import BookingSettings
from kalends_booking.store import people, reservations
from kalends_shared import events_rpc, idempotency
from kalends_shared.backends import open_backends, serve
from kalends_shared.relay import Relay
from kalends_shared.rpc import RpcClient
from kalends_shared.service import Service, run
from kalends_shared.timers import TimerWorker


async def main(service: Service[BookingSettings]) -> None:
    settings = service.settings
    db, bus = await open_backends(service, SCHEMA)

    relay = Relay("booking", settings.direct_url, SCHEMA.name, bus, enrich=people.join)
    service.supervise("relay", relay.run)
    service.supervise("prune reservations", partial(reservations.keep_pruned, db.pool))
    service.supervise("prune answers", partial(idempotency.keep_pruned, db.pool))

    ctx = Context(db, RpcQuotes(RpcClient(bus), db), relay.nudge, settings.alternatives_seconds)
    service.supervise("timers", TimerWorker(db, timers.fire, relay.nudge).run)

    await serve(service, bus, rpc.handlers(ctx) | events_rpc.handlers(db, "booking", people.join))


if __name__ == "__main__":
    run("booking", BookingSettings, main)
