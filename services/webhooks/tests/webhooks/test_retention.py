"""The log by days: made ahead, dropped behind."""

from datetime import UTC, datetime, timedelta

from kalends_shared.contracts import ids
from kalends_webhooks.upkeep import Upkeep

from .receiver import Receiver
from .rig import Rig

PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'deliveries'::regclass ORDER BY 1"


async def partitions(rig: Rig) -> list[str]:
    return [row[0] for row in await rig.db.pool.fetch(PARTITIONS)]


def named(day: datetime) -> str:
    return f"deliveries_{day:%Y%m%d}"


async def test_partitions_are_there_ahead_of_time(still: Rig):
    today = datetime.now(UTC)
    want = {named(today + timedelta(days=n)) for n in range(8)} | {"deliveries_default"}
    await Upkeep(still.db, 30).once()
    assert set(await partitions(still)) >= want


async def test_ids_fall_into_their_days_partition(rig: Rig, receiver: Receiver):
    floor = "SELECT delivery_floor(clock_timestamp())"
    assert await rig.value(floor) <= (made := ids.new_id("dlv")) <= await rig.value(floor) + "~"
    assert len(made) == len("dlv_") + 26
    webhook = await rig.subscribe(receiver.url())
    before = datetime.now(UTC)
    await rig.book()
    await rig.ended(webhook, 2)
    days = {named(before), named(datetime.now(UTC))}  # two, should midnight have come
    assert sum([await rig.value(f"SELECT count(*) FROM {day}") for day in days]) == 2
    assert await rig.value("SELECT count(*) FROM deliveries_default") == 0


async def test_days_past_retention_are_dropped(still: Rig):
    today = datetime.now(UTC)
    async with still.owner() as owner:
        for days in (9, 40):
            day = (today - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
            low, high = [
                await owner.fetchval("SELECT delivery_floor($1)", one) for one in (day, day + timedelta(days=1))
            ]
            await owner.execute(
                f"CREATE TABLE {named(day)} PARTITION OF deliveries FOR VALUES FROM ('{low}') TO ('{high}')"
            )
        await owner.execute(
            "INSERT INTO deliveries SELECT 't', 'dlv_0' || n, 'w', 1, 'm', 'x', 's', '', 'failed', now(), now() - interval '99 days', 1, '[]'"
            " FROM generate_series(1, 3) AS n"
        )
        await owner.execute(
            "INSERT INTO public_events (tenant_id, seq, id, type, created_at, recorded_at, stream_id, data)"
            " VALUES ('t', -5, 'msg_a', 'x', now(), now() - interval '99 days', 's', '{}'), ('t', 5, 'msg_b', 'x', now(), now() - interval '99 days', 's', '{}')"
        )
    await Upkeep(still.db, 30).once()
    left = await partitions(still)
    assert named(today - timedelta(days=9)) in left
    assert named(today - timedelta(days=40)) not in left
    assert await still.value("SELECT count(*) FROM deliveries_default") == 0
    assert [row["id"] for row in await still.db.pool.fetch("SELECT id FROM public_events")] == ["msg_b"]
