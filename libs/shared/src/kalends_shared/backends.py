"""What a service of the data plane stands on, PostgreSQL and NATS, opened in one way by all of them, and serves by."""

from collections.abc import Mapping
from functools import partial
from typing import TypeVar

from nats.aio.client import Client

from kalends_shared import migrations, nats
from kalends_shared.db import Database
from kalends_shared.migrations import Schema
from kalends_shared.rpc import Handler, RpcServer
from kalends_shared.service import Service
from kalends_shared.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


async def open_backends(service: Service[S], schema: Schema) -> tuple[Database, Client]:
    """The pool on the service's schema, and the connection to NATS: both watched by readiness, and closed at its end.

    Raises:
        PendingMigrations: the schema is older than this code needs.
        OSError, asyncpg or nats errors: one of the two is not there.
    """
    settings = service.settings
    db = await Database.connect(
        settings.database_url,
        schema.name,
        size=settings.database_pool,
        direct_url=settings.direct_url,
        name=service.process,
    )
    service.defer(db.close)
    async with db.transaction() as conn:
        await migrations.check(conn, schema)
    service.watch("postgres", lambda: db.pool.execute("SELECT 1"))
    bus = await nats.connect(settings.nats_url, service.process, service.health)
    service.defer(partial(nats.close, bus))
    return db, bus


async def serve(service: Service[S], bus: Client, methods: Mapping[str, Handler]) -> None:
    """Takes requests for the service from here on; at its end, what is in flight still finds everything open."""
    server = RpcServer(bus, service.name, methods)
    await server.start()
    service.defer(partial(server.stop, service.settings.shutdown_seconds))
