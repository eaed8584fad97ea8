"""The webhooks service: settings -> adapters -> handlers -> serve. Role `dispatch` makes events and serves, `deliver` sends."""

import argparse
import os
import sys

from kalends_shared import events_rpc, idempotency
from kalends_shared.backends import open_backends, serve
from kalends_shared.consumer import Consumer
from kalends_shared.rpc import RpcClient
from kalends_shared.seal import Keyring
from kalends_shared.service import Service, run
from kalends_webhooks import rpc
from kalends_webhooks.delivery.dialing import Dialer
from kalends_webhooks.delivery.http1 import Client as HttpClient
from kalends_webhooks.delivery.sender import Sender
from kalends_webhooks.delivery.targets import Targets
from kalends_webhooks.delivery.worker import Worker
from kalends_webhooks.dispatch import Dispatcher
from kalends_webhooks.handlers.changes import Changes
from kalends_webhooks.handlers.deliveries import Deliveries
from kalends_webhooks.handlers.disabling import Disabling
from kalends_webhooks.handlers.replaying import Replaying
from kalends_webhooks.handlers.scrubbing import Scrubbing
from kalends_webhooks.handlers.settling import Settling
from kalends_webhooks.handlers.webhooks import Webhooks
from kalends_webhooks.nudges import Nudges
from kalends_webhooks.schema import SCHEMA
from kalends_webhooks.settings import WebhooksSettings
from kalends_webhooks.subscribers import Subscribers
from kalends_webhooks.upkeep import Upkeep

LEAVING_SECONDS = 2.0  # for giving back what could not end
SOURCES = ("booking", "calendar")


async def main(service: Service[WebhooksSettings]) -> None:
    settings = service.settings
    db, bus = await open_backends(service, SCHEMA)
    nudges = Nudges(bus)
    keyring = Keyring.parse(settings.secret_key)
    policy = settings.policy()
    brand = settings.headers()

    if settings.role in {"all", "deliver"}:
        client = HttpClient(Dialer(policy, proxy=settings.proxy()))
        worker = Worker(
            db,
            Targets(db, keyring, policy),
            Sender(client, brand),
            Disabling(db, nudges.send).follow,
            places=settings.webhooks_concurrency,
            drain_seconds=max(settings.shutdown_seconds - LEAVING_SECONDS, 0.0),
        )
        await nudges.wake(worker)
        service.supervise("worker", worker.run)

    if settings.role in {"all", "dispatch"}:
        client_rpc = RpcClient(bus)
        watches, sources = {}, {}
        for source in SOURCES:
            events_after = events_rpc.over_rpc(client_rpc, source)
            dispatcher = Dispatcher(Subscribers(), nudges.send, nudges.worker)
            consumer = Consumer(
                "webhooks",
                source,
                db,
                bus,
                events_after,
                dispatcher.apply,
                dispatcher.after_commit,
            )
            watches[source] = consumer.watch
            sources[source] = (consumer.watch, events_rpc.last_over_rpc(client_rpc, source))
            service.supervise(f"consumer {source}", consumer.run)
        replaying = Replaying(db, nudges.due)
        service.supervise("replays", replaying.run)
        service.supervise("scrubs", Scrubbing(db).run)
        service.supervise("upkeep", Upkeep(db, settings.webhooks_log_days).run)
        webhooks = Webhooks(db, keyring, policy, brand, settings.webhooks_profile, Settling(sources))
        deliveries = Deliveries(db, nudges.due, replaying, watches)
        methods = rpc.handlers(webhooks, deliveries, Changes(db, watches))
        await serve(service, bus, idempotency.first_answers(db, methods))


def take_role(arguments: list[str]) -> list[str]:
    """`--role deliver` is KALENDS_ROLE by another way; returns what is left of the arguments."""
    parser = argparse.ArgumentParser(prog="kalends_webhooks", add_help=False)
    parser.add_argument("--role", choices=("all", "dispatch", "deliver"))
    known, rest = parser.parse_known_args(arguments)
    if known.role is not None:
        os.environ["KALENDS_ROLE"] = known.role
    return rest


if __name__ == "__main__":
    sys.argv[1:] = take_role(sys.argv[1:])
    run("webhooks", WebhooksSettings, main)
