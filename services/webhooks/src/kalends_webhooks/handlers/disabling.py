"""Subscriptions that end by themselves: their receiver is gone or has asked for it, or nothing has gone through for days."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from kalends_shared import telemetry
from kalends_shared.contracts import ids
from kalends_shared.db import Database
from kalends_webhooks import emitting
from kalends_webhooks.delivery import metrics
from kalends_webhooks.delivery.job import Clock, Lane, wall
from kalends_webhooks.dispatch import Nudge
from kalends_webhooks.domain.derive import Drafted
from kalends_webhooks.domain.facts import Facts
from kalends_webhooks.domain.outcome import given_up
from kalends_webhooks.domain.subscription import public
from kalends_webhooks.store import subscriptions
from kalends_webhooks.subscribers import Subscribers

FAILING: Final = "failing"
LOOK_AGAIN: Final = timedelta(minutes=5)


class Disabling:
    """What follows attempts (`worker.Followed`). It looks at a failing subscription's past every few minutes at most."""

    def __init__(self, db: Database, nudge: Nudge, clock: Clock = wall) -> None:
        self._db, self._nudge, self._clock = db, nudge, clock
        self._looked: dict[Lane, datetime] = {}

    async def follow(self, disable: list[tuple[Lane, str]], failed: set[Lane]) -> None:
        now = self._clock()
        self._looked = {lane: at for lane, at in self._looked.items() if now - at < LOOK_AGAIN}
        look = [lane for lane in failed if lane not in self._looked]
        if look:
            self._looked |= dict.fromkeys(look, now)
            since = await subscriptions.failing_since(self._db.pool, look)
            disable = disable + [(Lane(*key), FAILING) for key, at in since.items() if given_up(at, now)]
        for lane, reason in disable:
            await self.disable(lane, reason, now)

    async def disable(self, lane: Lane, reason: str, now: datetime) -> None:
        """Ends a subscription and tells the account's others, in one transaction; nothing where it is disabled already."""
        async with self._db.transaction() as conn:
            await subscriptions.changed(conn, lane.tenant_id)
            before = await subscriptions.one(conn, *lane, lock=True)
            if before is None or not before.wanted.enabled:
                return
            after = msgspec.structs.replace(
                before,
                wanted=msgspec.structs.replace(before.wanted, enabled=False),
                version=before.version + 1,
                updated_at=now,
                disabled_reason=reason,
            )
            await subscriptions.update(conn, after)
            drafted = Drafted(
                id=ids.derived("msg", after.id, str(after.version), "webhook.disabled"),
                type="webhook.disabled",
                tenant_id=lane.tenant_id,
                created_at=now,
                stream_id=after.id,
                data=msgspec.json.encode(Facts(webhook=public(after), reason=reason)),
            )
            # Its own memory of subscriptions, as what it reads here may yet be rolled back.
            made = await emitting.emit(conn, [drafted], Subscribers())
        metrics.DISABLED.labels(reason).inc()
        telemetry.log("webhook.disabled", tenant=lane.tenant_id, webhook_id=lane.webhook_id, reason=reason)
        await self._nudge(made.lanes, [lane.tenant_id])
