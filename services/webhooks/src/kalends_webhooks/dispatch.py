"""Domain events -> public events and deliveries, in the transaction of the consumer's checkpoint."""

from collections.abc import Awaitable, Callable, Collection

from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection
from kalends_webhooks import emitting
from kalends_webhooks.delivery.job import Lane
from kalends_webhooks.domain.derive import derive
from kalends_webhooks.emitting import Made, Taker
from kalends_webhooks.store import feed
from kalends_webhooks.subscribers import Subscribers

# Tells workers which lanes have something due, and readers of /changes which accounts have news.
Nudge = Callable[[Collection[Lane], Collection[str]], Awaitable[None]]


class Dispatcher:
    """`apply` and `after_commit` of a consumer (kalends_shared.projection); each consumer has its own."""

    def __init__(self, subscribers: Subscribers, nudge: Nudge, taker: Taker | None = None) -> None:
        self._subscribers, self._nudge, self._taker = subscribers, nudge, taker
        self._made = Made([], set())
        self._tenants: set[str] = set()

    async def apply(self, conn: Connection, envelopes: list[Envelope]) -> None:
        """Writes what the events mean for this service; sends nothing yet."""
        self._forget()
        drafted = [public for envelope in envelopes for public in derive(envelope)]
        if drafted:
            self._made = await emitting.emit(conn, drafted, self._subscribers, self._taker)
            self._tenants = {event.tenant_id for event in drafted}
        for envelope in envelopes:
            if envelope.type == "person.erased":
                await feed.erase(conn, envelope.tenant_id, envelope.stream_id)

    async def after_commit(self, _: list[Envelope]) -> None:
        """Has what was committed sent."""
        made, tenants = self._made, self._tenants
        self._made, self._tenants = Made([], set()), set()
        if made.jobs and self._taker is not None:
            self._taker.start(made.jobs)
        if tenants:
            await self._nudge(made.lanes, tenants)

    def _forget(self) -> None:
        """What an earlier transaction had made that was rolled back: its claims went with it."""
        if self._taker is not None:
            self._taker.free([job.lane for job in self._made.jobs])
        self._made, self._tenants = Made([], set()), set()
