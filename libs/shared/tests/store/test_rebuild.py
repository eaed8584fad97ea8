import asyncio

import pytest
from nats.aio.client import Client

from kalends_shared import migrations, positions
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database
from kalends_shared.event_store import Position
from kalends_shared.positions import PositionWatch
from kalends_shared.projection import Projection, replay
from kalends_shared.relay import Relay
from kalends_shared.testkit.infra import Databases

from .helpers import SCHEMA, call, eventually, fill, running
from .sink import Sink


async def test_a_read_model_equals_its_rebuild_from_events(
    db: Database, database_url: str, databases: Databases, bus: Client, context: str
) -> None:
    sink = await Sink.create(db, database_url)
    async with running(Relay(context, db.url, db.schema, bus).run, sink.consumer(bus, context).run):
        await fill(db, 700)
        await eventually(sink.whole)

    url = await databases.create()
    await migrations.migrate(url, [SCHEMA])
    fresh = await Database.connect(url, SCHEMA.name)
    rebuilt = await Sink.create(fresh, url)
    assert await replay(Projection(fresh, context, rebuilt.apply), sink.events_after) == 700
    assert await rebuilt.ids() == await sink.ids()
    assert await replay(Projection(fresh, context, rebuilt.apply), sink.events_after) == 0
    await fresh.close()


async def test_a_read_waits_for_the_position_it_names_and_no_longer_than_it_may(db: Database) -> None:
    watches = {"booking": PositionWatch(db, "booking")}
    asked = call(min_position="booking:5.7,calendar:9.9")
    with pytest.raises(KalendsError) as refused:
        await positions.wait_for(watches, asked, 0.1)
    assert (refused.value.code, refused.value.retry_after) == ("position_not_reached", 1)
    waiting = asyncio.create_task(positions.wait_for(watches, asked, 60))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await db.pool.execute("INSERT INTO checkpoints (source, tx, position) VALUES ('booking', 5, 7)")
    await waiting
    await positions.wait_for(watches, call(), 0)


@pytest.mark.parametrize("text", ["x", "booking:", "booking:1", "booking:1.2,", ":"])
def test_a_position_that_was_never_given_is_malformed(text: str) -> None:
    with pytest.raises(KalendsError) as refused:
        positions.parse(text)
    assert refused.value.code == "malformed"


def test_positions_join_and_read_back() -> None:
    one = positions.joined(
        positions.token("booking", Position(3, 4)), None, positions.token("calendar", Position(1, 2))
    )
    assert one == "booking:3.4,calendar:1.2"
    assert positions.parse(f"{one}, booking:3.5") == {"booking": Position(3, 5), "calendar": Position(1, 2)}
    assert positions.joined(None) is None
