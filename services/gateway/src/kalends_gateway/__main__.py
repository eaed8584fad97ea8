"""The gateway: settings -> adapters -> handlers -> serve. `bootstrap` makes the first account instead."""

import sys
from functools import partial

import msgspec
from redis.asyncio import Redis

from kalends_gateway.bootstrap import bootstrap
from kalends_gateway.changes import Changes
from kalends_gateway.handlers.clock import Clock
from kalends_gateway.handlers.keys import Keys
from kalends_gateway.handlers.profile import profile
from kalends_gateway.http.admission import Admission
from kalends_gateway.http.app import application
from kalends_gateway.http.docs import pages
from kalends_gateway.http.door import Door
from kalends_gateway.http.endpoints import Api
from kalends_gateway.http.server import HttpServer
from kalends_gateway.identity import Identities
from kalends_gateway.limits import RateLimits
from kalends_gateway.replicas import Replicas
from kalends_gateway.schema import SCHEMA
from kalends_gateway.settings import BootstrapSettings, GatewaySettings
from kalends_gateway.usage import Usage
from kalends_shared import idempotency, migrations, nats
from kalends_shared.db import Database
from kalends_shared.rpc import Handler, RpcClient
from kalends_shared.service import Service, load_or_exit, run, run_loop


async def open_database(settings: GatewaySettings, name: str) -> Database:
    """Connects, and holds the schema to what this code needs."""
    db = await Database.connect(settings.database_url, "gateway", size=settings.database_pool, name=name)
    async with db.transaction() as conn:
        await migrations.check(conn, SCHEMA)
    return db


async def main(service: Service[GatewaySettings]) -> None:
    settings = service.settings
    db = await open_database(settings, service.process)
    service.defer(db.close)
    service.watch("postgres", lambda: db.pool.execute("SELECT 1"))
    bus = await nats.connect(settings.nats_url, service.process, service.health)
    service.defer(partial(nats.close, bus))
    redis = Redis.from_url(settings.redis_url)
    service.defer(redis.aclose)

    replicas = Replicas(db.pool, bus, settings.key_lease_seconds)
    identities = Identities(db.pool, settings.key_lease_seconds, replicas.counted)
    await replicas.join(identities)
    service.supervise("heartbeat", replicas.beat)
    service.supervise("keys", identities.refresh)
    usage = Usage(db.pool)
    service.supervise("usage", usage.run)
    service.supervise("prune answers", partial(idempotency.keep_pruned, db.pool))

    rpc = RpcClient(bus)
    changes = Changes(bus, rpc, settings.streams, settings.stream_seconds)
    admission = Admission(identities, RateLimits(redis, settings.rate_limit_seconds), usage)
    api = Api(
        admission,
        rpc,
        local=handlers(db, replicas, rpc, settings),
        streams={"list_changes": changes.stream},
        seconds=settings.request_seconds,
        body_limit=settings.body_limit,
    )
    app = Door(application([*api.handlers(), *pages()]), admission, settings.request_seconds)
    server = HttpServer(app, settings.http_host, settings.http_port)
    service.supervise("http", server.run)
    service.supervise("streams", changes.run)  # ended before the server, which waits for what is open
    service.publish("http", await server.ready())


def handlers(db: Database, replicas: Replicas, rpc: RpcClient, settings: GatewaySettings) -> dict[str, Handler]:
    """The endpoints that the gateway answers itself, by their names."""
    keys, clock = Keys(db, replicas, settings.key_prefix), Clock(db, replicas, rpc)
    of_keys = (keys.create_api_key, keys.list_api_keys, keys.get_api_key, keys.roll_api_key, keys.delete_api_key)
    me = profile(db.pool)
    found = {handler.__name__: handler for handler in (*of_keys, clock.get_test_clock, clock.set_test_clock)}
    return idempotency.first_answers(db, found) | {"get_profile": me, "get_me": me}


async def print_bootstrap(settings: BootstrapSettings) -> None:
    db = await open_database(settings, "bootstrap")
    try:
        made = await bootstrap(db, settings)
    finally:
        await db.close()
    sys.stdout.write(msgspec.json.encode(made).decode() + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [] | ["settings"]:
            run("gateway", GatewaySettings, main)
        case ["bootstrap"]:
            run_loop(lambda: print_bootstrap(load_or_exit(BootstrapSettings)))
        case _:
            sys.exit("usage: python -m kalends_gateway [bootstrap | settings]")
