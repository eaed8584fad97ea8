"""Past events again: as many as a call has time for at once, the rest behind it, a range of places at a time.

A step queues what it finds and moves the replay's place in one transaction, so whatever is killed, each event is queued
once a call. While a subscription has many deliveries waiting, its replays wait too: the queue stays bounded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from kalends_shared import telemetry
from kalends_shared.contracts import ids
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.webhooks import ReplayIn
from kalends_shared.db import Connection, Database
from kalends_shared.service import wait
from kalends_webhooks.delivery import metrics
from kalends_webhooks.delivery.job import Lane
from kalends_webhooks.domain import facts
from kalends_webhooks.domain.subscription import Subscription, wants
from kalends_webhooks.store import feed, queue, replays, subscriptions
from kalends_webhooks.store.replays import Replay

SPAN: Final = 1_000  # places a step
CALL_SECONDS: Final = 1.0
QUEUED_MOST: Final = 10_000  # deliveries of a subscription that wait, above which its replays do
OPEN_MOST: Final = 10  # an account's replays at work
LOOK_SECONDS: Final = 1.0
LOOK_MOST: Final = 1_000

Due = Callable[[Lane], Awaitable[None]]


class Replaying:
    """Begins replays, and works on those that are not done; every replica may, one at a time works on each."""

    def __init__(self, db: Database, due: Due) -> None:
        self._db, self._due = db, due

    async def begin(self, conn: Connection, subscription: Subscription, asked: ReplayIn) -> Replay:
        """Queues what a call has time for, and keeps the rest to be worked on; done where `after` is `until`.

        Raises:
            KalendsError: `limit_reached` where too many of the account's are at work.
        """
        tenant = subscription.tenant_id
        replay = Replay(
            tenant_id=tenant,
            id=ids.new_id("rpl"),
            webhook_id=subscription.id,
            asked=asked,
            enabled=subscription.wanted.enabled,
            after=0,
            until=await feed.last(conn, tenant),
        )
        until = time.monotonic() + CALL_SECONDS
        while replay.after < replay.until and time.monotonic() < until and replay.made < QUEUED_MOST:
            await _step(conn, replay, subscription)
        if replay.after < replay.until:
            if await replays.count(conn, tenant) >= OPEN_MOST:
                raise KalendsError("limit_reached", f"An account has at most {OPEN_MOST} replays at work.")
            await replays.insert(conn, replay)
        return replay

    async def run(self, stop: asyncio.Event) -> None:
        """Works on what is left, every replay in turn, until `stop`."""
        while not stop.is_set():
            left = await replays.at_work(self._db.pool, LOOK_MOST)
            metrics.REPLAYS.set(len(left))
            moved = [await self.work(*key) for key in left if not stop.is_set()]
            if not any(moved):
                await wait(stop, LOOK_SECONDS)

    async def work(self, tenant: str, replay_id: str) -> bool:
        """One step of a replay; False where there is nothing to do for it right now."""
        async with self._db.transaction() as conn:
            replay = await replays.take(conn, tenant, replay_id)
            if replay is None:
                return False
            subscription = await subscriptions.one(conn, tenant, replay.webhook_id)
            if subscription is None or (replay.enabled and not subscription.wanted.enabled):
                await replays.end(conn, replay)
                telemetry.log("webhooks.replay_dropped", tenant=tenant, replay_id=replay.id, deliveries=replay.made)
                return True
            if await replays.queued(conn, replay, QUEUED_MOST) >= QUEUED_MOST:
                return False
            await _step(conn, replay, subscription)
            done = replay.after >= replay.until
            await (replays.end(conn, replay) if done else replays.move(conn, replay))
        if done:
            telemetry.log("webhooks.replayed", tenant=tenant, replay_id=replay.id, deliveries=replay.made)
        await self._due(Lane(tenant, replay.webhook_id))
        return True


async def _step(conn: Connection, replay: Replay, subscription: Subscription) -> None:
    """Queues, of the next range of places, what is asked for and the subscription is for; moves the replay past it."""
    up_to = min(replay.after + SPAN, replay.until)
    found = await replays.events(conn, replay, up_to)
    chosen = [one.seq for one in found if wants(subscription, facts.traits(one.type, one.data))]
    if chosen:
        delivery_ids = sorted(ids.new_id("dlv") for _ in chosen)
        pairs = list(zip(chosen, delivery_ids, strict=True))
        await queue.add(conn, replay.tenant_id, subscription.id, replay.id, pairs)
    replay.after, replay.made = up_to, replay.made + len(chosen)
