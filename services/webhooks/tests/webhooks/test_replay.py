"""Replays that are too large for one call: they go on behind it, whatever is cut off, and bring each event once."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from kalends_shared.contracts.errors import KalendsError
from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.handlers import replaying

from .making import TENANT
from .receiver import Receiver
from .rig import Rig

# What booking would have told long ago: copies of an event there is, each in its place.
FILL = """
WITH made AS (
    INSERT INTO public_events (tenant_id, seq, id, type, created_at, stream_id, data)
    SELECT p.tenant_id, f.last_seq + n, 'msg_' || n, p.type, now() - interval '1 year', p.stream_id, p.data
    FROM public_events p JOIN feeds f ON f.tenant_id = p.tenant_id, generate_series(1, $2::integer) AS n
    WHERE p.tenant_id = $1 AND p.seq = 2
)
UPDATE feeds SET last_seq = last_seq + $2 WHERE tenant_id = $1
"""


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that has no time of its own, and steps small enough to be cut off between."""
    monkeypatch.setattr(replaying, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(replaying, "SPAN", 50)


async def filled(rig: Rig, count: int) -> None:
    """A feed with so many events from before any subscription."""
    async with rig.running(rig.relay, rig.consumer):
        await rig.book()
        await rig.caught_up()
    await rig.db.pool.execute(FILL, TENANT, count)


async def queued(rig: Rig) -> Counter[str]:
    return Counter(row["event_id"] for row in await rig.db.pool.fetch("SELECT event_id FROM queue"))


async def work_on(rig: Rig) -> None:
    async with rig.running(rig.replaying, replaying.Replaying(rig.db, rig._due)):

        async def done() -> bool:
            return not await rig.value("SELECT count(*) FROM replays")

        await eventually_async(done)


async def test_what_a_call_has_no_time_for_follows_by_itself(still: Rig, receiver: Receiver):
    await filled(still, 400)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    answer = await still.ask("replay_webhook", {}, id=webhook["id"])
    assert (answer["webhook_id"], answer["deliveries"], answer["complete"]) == (webhook["id"], 0, False)
    async with still.running(still.worker, still.replaying):
        ended = await receiver.wait(401)
    assert set(Counter(got.json["id"] for got in ended).values()) == {1}
    assert await still.value("SELECT count(*) FROM replays") == 0


class Cut:
    """Cancels whoever comes first to a step of a replay, once it is armed: as the step, or what follows it, is asked of
    the database. `took` is true once it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, after: bool) -> None:
        self.took = False
        real = getattr(module, name)

        async def cut_off(*given: Any) -> Any:
            cutting, self.took = not self.took, True
            done = await real(*given) if after else None
            if cutting:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            return done if after else await real(*given)

        monkeypatch.setattr(module, name, cut_off)


# In the middle of each statement of a step, and of its commit.
CUTS = [
    (replaying.replays, "take", False), (replaying.replays, "queued", False), (replaying.replays, "events", False),
    (replaying.queue, "add", False), (replaying.replays, "move", False), (replaying.replays, "move", True),
]  # fmt: skip
LAST_CUTS = [(replaying.replays, "end", False), (replaying.replays, "end", True)]


async def test_whatever_is_cut_off_each_event_is_queued_once_a_call(still: Rig, receiver: Receiver):
    """Steps are cut off wherever they are, beside another replica's; the same call again under its key is the first."""
    await filled(still, 1_500)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    calls = [await still.ask("replay_webhook", {}, id=webhook["id"], idempotency_key="k") for _ in range(2)]
    assert calls[0] == calls[1]
    (key,) = await replaying.replays.at_work(still.db.pool, 10)

    async def work() -> list[Any]:
        replicas = (replaying.Replaying(still.db, still._due).work(*key) for _ in range(2))
        return await asyncio.gather(*replicas, return_exceptions=True)

    async def cut_off(module: Any, name: str, *, after: bool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            cut = Cut(patch, module, name, after=after)
            while not cut.took:
                came = await work()
            assert [type(one) for one in came if one not in {True, False}] == [asyncio.CancelledError]

    for _ in range(3):
        for module, name, after in CUTS:
            await cut_off(module, name, after=after)
    assert len(await queued(still)) < 1_501, "its end is still to come"
    for module, name, after in LAST_CUTS:
        await cut_off(module, name, after=after)
    await work_on(still)
    found = await queued(still)
    assert (len(found), set(found.values())) == (1_501, {1})
    await still.ask("replay_webhook", {}, id=webhook["id"])
    await work_on(still)
    assert set((await queued(still)).values()) == {2}, "another call brings them again"


async def test_a_replay_waits_while_much_is_waiting(still: Rig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replaying, "QUEUED_MOST", 100)
    await filled(still, 400)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    await still.ask("replay_webhook", {}, id=webhook["id"])
    (key,) = await replaying.replays.at_work(still.db.pool, 10)
    while await still.replaying.work(*key):
        continue
    assert 100 <= sum((await queued(still)).values()) <= 150
    async with still.running(still.worker, still.replaying):
        assert len({got.json["id"] for got in await receiver.wait(401)}) == 401


async def test_it_brings_what_was_there_when_it_was_asked_for(still: Rig, receiver: Receiver):
    await filled(still, 60)
    webhook = await still.subscribe(receiver.url(), ["booking.cancelled"])
    later = await still.ask("patch_webhook", {"events": ["booking.confirmed"]}, id=webhook["id"])
    asked = {"start_at": "2001-01-01T00:00:00Z", "end_at": later["updated_at"], "events": ["booking.confirmed"]}
    await still.ask("replay_webhook", asked, id=webhook["id"])
    await still.db.pool.execute(FILL.replace("'msg_'", "'msg_x'"), TENANT, 1)
    await work_on(still)
    assert not [name for name in await queued(still) if name.startswith("msg_x")]


@pytest.mark.parametrize("method", ["delete_webhook", "patch_webhook"])
async def test_it_ends_with_its_subscription(still: Rig, receiver: Receiver, method: str):
    await filled(still, 200)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    await still.ask("replay_webhook", {}, id=webhook["id"])
    await still.ask(method, {"enabled": False} if method == "patch_webhook" else None, id=webhook["id"])
    await work_on(still)
    assert await queued(still) == {}


async def test_a_disabled_one_gets_the_replay_that_is_asked_for(still: Rig, receiver: Receiver):
    await filled(still, 200)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], enabled=False)
    await still.ask("replay_webhook", {}, id=webhook["id"])
    await work_on(still)
    assert len(await queued(still)) == 201


async def test_an_account_has_so_many_at_work(still: Rig, receiver: Receiver):
    await filled(still, 10)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    for _ in range(replaying.OPEN_MOST):
        await still.ask("replay_webhook", {}, id=webhook["id"])
    with pytest.raises(KalendsError) as refused:
        await still.ask("replay_webhook", {}, id=webhook["id"])
    assert refused.value.code == "limit_reached"
