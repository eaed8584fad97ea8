"""Busy time put right out of the events, while the consumer goes on."""

from datetime import timedelta

import msgspec
import pytest
from nats.aio.client import Client as Bus

from kalends_availability.projections import bookings
from kalends_availability.projections.followed import Followed
from kalends_availability.projections.rebuild import rebuild
from kalends_availability.schema import SCHEMA
from kalends_shared.consumer import Consumer
from kalends_shared.contracts.booking import BookingState
from kalends_shared.db import Database
from kalends_shared.relay import Relay
from kalends_shared.testkit.waiting import eventually_async

from .source import Source, running, starts_seen
from .world import NOW, Client, Node, _common, at

ROWS = "SELECT b::text FROM busy b ORDER BY 1"
SPOILT = {
    "missing": "DELETE FROM busy WHERE version = 2",
    "wrong": "UPDATE busy SET reserved_from = reserved_from + 720, reserved_to = reserved_to + 720 WHERE version = 2",
    "too many": "INSERT INTO busy SELECT tenant_id, 'bkg_none', version, subject_id, resource_id, event_type_id, reserved_from"
    " - 180, reserved_to - 180, start_min - 180, end_min - 180, seats, status, lapses_at, created_at, seen_from, NULL"
    " FROM busy WHERE version = 2",
}


@pytest.mark.parametrize(("spoil", "differ"), [("missing", 1), ("wrong", 2), ("too many", 1)])
async def test_what_differs_from_the_events_is_told_then_put_right_and_caches_hear_of_it(
    database_url: str, own_bus: Bus, source: Source, spoil: str, differ: int
) -> None:
    db = await Database.connect(database_url, SCHEMA.name, size=5)
    node = await Node.start(db, own_bus)
    api = Client(node)
    followed = Followed(bookings.apply, node.replica, own_bus)
    consumer = Consumer(
        "availability", "booking", db, own_bus, source.events_after, followed.apply, followed.after_commit
    )
    kind = await api.event_type()
    state = BookingState(**_common(kind, at(9)), id="bkg_one", version=1, status="confirmed", person_id="per_1",
                         person_version="v", resource_ids=[])  # fmt: skip
    later = msgspec.structs.replace(state, version=2, start_at=at(12), end_at=at(12.5), updated_at=NOW + timedelta(1))
    async with running(Relay("booking", database_url, "booking", own_bus).run, consumer.run, node.replica.keep_swept):
        await source.tell(api.tenant, state, "booking.created")
        token = await source.tell(api.tenant, later, "booking.rescheduled")
        right = await starts_seen(api, kind["id"], token)
        rows = await db.pool.fetch(ROWS)
        assert await rebuild(database_url, "booking", source.events_after, write=True) == {"busy": 0}

        await db.pool.execute(SPOILT[spoil])
        node.replica.clear()
        assert await api.starts(kind["id"]) != right
        assert await rebuild(database_url, "booking", source.events_after, write=False) == {"busy": differ}
        assert await db.pool.fetch(ROWS) != rows
        assert await rebuild(database_url, "booking", source.events_after, write=True) == {"busy": differ}
        assert await db.pool.fetch(ROWS) == rows

        async def heard() -> bool:
            return await api.starts(kind["id"]) == right

        await eventually_async(heard)
        gone = msgspec.structs.replace(later, version=3, status="cancelled", updated_at=NOW + timedelta(2))
        token = await source.tell(api.tenant, gone, "booking.cancelled")
        assert at(12) in await starts_seen(api, kind["id"], token), "the consumer goes on"
    await db.close()


async def test_calendars_are_rebuilt_of_their_events(database_url: str, source: Source) -> None:
    async def nothing(*_: object) -> list[object]:
        return []

    owner = await Database.connect(database_url, SCHEMA.name, size=1)
    await owner.pool.execute(
        "INSERT INTO calendars (tenant_id, id, version, host_id, counts, seen_from) VALUES ('a', 'cal_1', 1, 'hst_1', true, now())"
    )
    again = await rebuild(database_url, "calendar", nothing, write=True)  # type: ignore[arg-type]
    assert again == {"calendar_busy": 0, "calendars": 1}
    assert await owner.pool.fetchval("SELECT count(*) FROM calendars") == 0
    assert await owner.pool.fetchval("SELECT key FROM touched") == "calendar/hst_1"
    await owner.close()
