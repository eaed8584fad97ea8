"""Booking's events over JetStream: relay, stream and consumer as they run, and a rebuild."""

from datetime import timedelta

import msgspec
import pytest
from nats.aio.client import Client as Bus

from kalends_availability.projections import bookings
from kalends_availability.projections.followed import Followed
from kalends_availability.schema import SCHEMA
from kalends_shared.consumer import Consumer
from kalends_shared.contracts.booking import BookingState
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database
from kalends_shared.projection import Projection, replay
from kalends_shared.relay import Relay
from kalends_shared.servers import Nats
from kalends_shared.testkit.waiting import eventually_async

from .source import Source, running, starts_seen
from .world import NOW, Client, Node, _common, at

ROWS = """
SELECT tenant_id, id, version, subject_id, resource_id, event_type_id, reserved_from, reserved_to, start_min, end_min, seats,
    status, lapses_at, created_at, seen_from, seen_until
FROM busy ORDER BY tenant_id, id, version, subject_id
"""


async def test_a_booking_reaches_availability_and_a_rebuild_comes_to_the_same(
    database_url: str, own_bus: Bus, own_nats: Nats, source: Source
) -> None:
    db = await Database.connect(database_url, SCHEMA.name, size=5)
    node = await Node.start(db, own_bus)
    api = Client(node)
    followed = Followed(bookings.apply, node.replica, own_bus)
    consumer = Consumer(
        "availability",
        "booking",
        db,
        own_bus,
        source.events_after,
        followed.apply,
        followed.after_commit,
        durable=False,
    )
    kind = await api.event_type()
    state = BookingState(**_common(kind, at(9)), id="bkg_one", version=1, status="confirmed", person_id="per_1",
                         person_version="v", resource_ids=[])  # fmt: skip
    async with running(Relay("booking", database_url, "booking", own_bus).run, consumer.run):
        token = await source.tell(api.tenant, state, "booking.created")
        # A read that names the write waits until it can see it.
        assert at(9) not in await starts_seen(api, kind["id"], token)
        later = msgspec.structs.replace(
            state, version=2, start_at=at(12), end_at=at(12.5), updated_at=NOW + timedelta(1)
        )
        token = await source.tell(api.tenant, later, "booking.rescheduled")
        starts = await starts_seen(api, kind["id"], token)
        assert (at(9) in starts, at(12) in starts) == (True, False)
        # A wiped stream loses nothing.
        own_nats.wipe()
        own_nats.start()
        gone = msgspec.structs.replace(later, version=3, status="cancelled", updated_at=NOW + timedelta(2))
        token = await source.tell(api.tenant, gone, "booking.cancelled")

        async def freed() -> bool:
            return at(12) in await api.starts(kind["id"])

        await eventually_async(freed)
        with pytest.raises(KalendsError) as late:
            await api.starts(kind["id"], min_position="booking:999999999999.1")
        assert late.value.code == "position_not_reached"
    rows = await db.pool.fetch(ROWS)
    assert [(row["version"], row["seen_until"] is None) for row in rows] == [(1, False), (2, False)]
    await db.pool.execute("DELETE FROM busy")
    await db.pool.execute("DELETE FROM checkpoints")
    again = Followed(bookings.apply, node.replica, own_bus)
    projection = Projection(db, "booking", again.apply)
    await projection.load()
    assert await replay(projection, source.events_after) == 3
    assert await db.pool.fetch(ROWS) == rows
    await db.close()
