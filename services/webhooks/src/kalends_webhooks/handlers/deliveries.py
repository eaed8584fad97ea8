"""Deliveries: list, read, retry; samples by `test`; and past events again by `replay`."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from kalends_shared import lists
from kalends_shared.contracts import ids
from kalends_shared.contracts.call import Call, Reply, encoded
from kalends_shared.contracts.decode import decode, query
from kalends_shared.contracts.endpoints import NoBody
from kalends_shared.contracts.errors import not_found
from kalends_shared.contracts.webhooks import DeliveriesQuery, Delivery, Replayed, ReplayIn, TestIn
from kalends_shared.db import Connection, Database, Queryable
from kalends_shared.idempotency import idempotent
from kalends_shared.positions import PositionWatch, wait_for
from kalends_webhooks.delivery.job import Lane
from kalends_webhooks.domain.samples import sample
from kalends_webhooks.domain.subscription import Subscription
from kalends_webhooks.handlers.replaying import Due, Replaying
from kalends_webhooks.store import deliveries, feed, queue, subscriptions


class ById(Struct):
    """What lists of deliveries are sorted by: ids begin with the time of their making."""

    id: str


class Deliveries:
    """The handlers of deliveries; `due` tells workers of a lane that has something due.

    `watches` tell how far each source's events have become deliveries, for reads that want to see their own write.
    """

    def __init__(self, db: Database, due: Due, replaying: Replaying, watches: Mapping[str, PositionWatch]) -> None:
        self._db, self._due, self._replaying, self._watches = db, due, replaying, watches

    async def list(self, call: Call) -> Reply:
        webhook_id = call.params["id"]
        asked = query(call.query, DeliveriesQuery)
        window = lists.window(asked, ById)
        await wait_for(self._watches, call)
        if not await subscriptions.exists(self._db.pool, call.tenant, webhook_id):
            raise not_found("This webhook")
        after = window.after.id if window.after else None
        rows = await deliveries.page(self._db.pool, call.tenant, webhook_id, asked, after, window.take, window.offset)
        total = None
        if window.numbered:
            total = await deliveries.count(self._db.pool, call.tenant, webhook_id, asked)
        return Reply(body=lists.answer(window, rows, key=_key, encode=msgspec.json.encode, total=total))

    async def get(self, call: Call) -> Reply:
        await wait_for(self._watches, call)
        return Reply(body=await self._one(self._db.pool, call))

    async def retry(self, call: Call) -> Reply:
        decode(call.body, NoBody)

        async def again(conn: Connection) -> Reply:
            before = await self._one(conn, call)
            if not await subscriptions.exists(conn, call.tenant, before.webhook_id):
                raise not_found("The webhook of this delivery")
            await deliveries.retry(conn, call.tenant, before.id)
            return Reply(status=202, body=await self._one(conn, call), position=await feed.written(conn))

        # The answer shows what the receiver has answered, which an erasure has to find.
        person_id = await deliveries.person_of(self._db.pool, call.tenant, call.params["id"])
        reply = await idempotent(self._db, call, again, person_id=person_id)
        await self._due(Lane(call.tenant, msgspec.json.decode(encoded(reply.body), type=_Of).webhook_id))
        return reply

    async def test(self, call: Call) -> Reply:
        asked = decode(call.body, TestIn)

        async def make(conn: Connection) -> Reply:
            subscription = await self._subscription(conn, call)
            drafted = sample(asked.type, subscription, call.now)
            seq = await feed.sample(conn, drafted, call.now)
            delivery_id = ids.new_id("dlv")
            await queue.add(conn, call.tenant, subscription.id, "test", [(seq, delivery_id)])
            made = await deliveries.one(conn, call.tenant, delivery_id)
            position = await feed.written(conn)
            return Reply(status=202, body=made, location=f"/deliveries/{delivery_id}", position=position)

        reply = await idempotent(self._db, call, make)
        await self._due(Lane(call.tenant, call.params["id"]))
        return reply

    async def replay(self, call: Call) -> Reply:
        asked = decode(call.body, ReplayIn)

        async def make(conn: Connection) -> Reply:
            subscription = await self._subscription(conn, call)
            made = await self._replaying.begin(conn, subscription, asked)
            answer = Replayed(
                id=made.id, webhook_id=made.webhook_id, deliveries=made.made, complete=made.after >= made.until
            )
            return Reply(status=202, body=answer, position=await feed.written(conn))

        reply = await idempotent(self._db, call, make)
        await self._due(Lane(call.tenant, call.params["id"]))
        return reply

    async def _subscription(self, conn: Connection, call: Call) -> Subscription:
        found = await subscriptions.one(conn, call.tenant, call.params["id"])
        if found is None:
            raise not_found("This webhook")
        return found

    async def _one(self, conn: Queryable, call: Call) -> Delivery:
        found = await deliveries.one(conn, call.tenant, call.params["id"])
        if found is None:
            raise not_found("This delivery")
        return found


class _Of(Struct):
    webhook_id: str


def _key(row: Delivery) -> ById:
    return ById(row.id)
