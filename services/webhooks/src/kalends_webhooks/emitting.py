"""Public events into the feed and their deliveries into the queue, chosen by the subscriptions as they are right then."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from kalends_shared.contracts import ids
from kalends_shared.db import Connection
from kalends_webhooks.delivery.job import Job, Lane
from kalends_webhooks.domain.derive import Drafted
from kalends_webhooks.domain.subscription import Subscription, wants
from kalends_webhooks.store import feed
from kalends_webhooks.store.feed import Planned
from kalends_webhooks.subscribers import Subscribers


class Taker(Protocol):
    """A worker in this process, which may take deliveries as they are made and so spare them the way through the queue."""

    def reserve(self, subscription: Subscription) -> tuple[str, int] | None:
        """Keeps a place for one delivery: the claim's name and the seconds of its lease; None where there is no room."""

    def free(self, lanes: Iterable[Lane]) -> None:
        """Gives places back that were reserved in vain."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Sends deliveries for which places were reserved, now that they are committed."""


class Made(Struct):
    """What there is to send once the transaction is committed: by the taker itself, and by whoever claims it."""

    jobs: list[Job]
    lanes: set[Lane]


async def emit(
    conn: Connection, drafted: Sequence[Drafted], subscribers: Subscribers, taker: Taker | None = None
) -> Made:
    """Makes the events that are new. The accounts' feeds stay locked until the transaction ends."""
    tenants = sorted({event.tenant_id for event in drafted})
    while True:
        known = await subscribers.of(conn, tenants)
        planned, jobs = _plan(drafted, {tenant: listed for tenant, (_, listed) in known.items()}, taker)
        try:
            versions = {tenant: version for tenant, (version, _) in known.items()}
            done = await feed.emit(conn, versions, drafted, planned)
        except BaseException:
            _free(taker, jobs.values())
            raise
        if not done.stale:
            break
        # The locks are held from here on, so what is read now stays as it is.
        _free(taker, jobs.values())
        subscribers.forget(done.stale)
    queued, redacted = set(done.queued), set(done.redacted)
    _free(taker, [job for job in jobs.values() if job.id not in queued])
    taken = [job for job in jobs.values() if job.id in queued]
    for job in taken:
        if job.event_id in redacted:
            job.attendees = None
    left = {
        Lane(drafted[one.of].tenant_id, one.webhook_id) for one in planned if one.claim is None and one.id in queued
    }
    return Made(taken, left)


def _plan(
    drafted: Sequence[Drafted], listed: dict[str, list[Subscription]], taker: Taker | None
) -> tuple[list[Planned], dict[str, Job]]:
    """Which deliveries there are, and those of them that the taker sends, by id."""
    matched = [
        (of, event, subscription)
        for of, event in enumerate(drafted)
        for subscription in listed[event.tenant_id]
        if subscription.wanted.enabled and wants(subscription, event)
    ]
    jobs: dict[str, Job] = {}
    planned: list[Planned] = []
    # Ids in the order of events, so that a list by id is one by event.
    names = sorted(ids.new_id("dlv") for _ in matched)
    for (of, event, subscription), name in zip(matched, names, strict=True):
        place = taker.reserve(subscription) if taker is not None else None
        if place is None:
            planned.append(Planned(of, subscription.id, name))
            continue
        planned.append(Planned(of, subscription.id, name, *place))
        jobs[name] = Job(
            lane=Lane(event.tenant_id, subscription.id),
            id=name,
            claim=place[0],
            event_id=event.id,
            type=event.type,
            created_at=event.created_at,
            data=event.data,
            attendees=event.attendees,
            traceparent=event.traceparent,
            subscription_version=subscription.version,
        )
    return planned, jobs


def _free(taker: Taker | None, jobs: Iterable[Job]) -> None:
    if taker is not None:
        taker.free([job.lane for job in jobs])
