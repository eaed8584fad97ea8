"""A projection as a consumer runs it: effects and the word for the sweep in one transaction, then the broadcast."""

from collections.abc import Awaitable, Callable

from nats.aio.client import Client

from kalends_availability.projections.bookings import Key, touch
from kalends_availability.store.replica import Replica
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection

Effects = Callable[[Connection, list[Envelope]], Awaitable[set[Key]]]


class Followed:
    """`apply` and `after_commit` of one source's consumer."""

    def __init__(self, effects: Effects, replica: Replica, bus: Client) -> None:
        self._effects = effects
        self._replica = replica
        self._bus = bus
        self._changed: set[Key] = set()

    async def apply(self, conn: Connection, events: list[Envelope]) -> None:
        changed = await self._effects(conn, events)
        await touch(conn, changed)
        # Kept when the transaction is rolled back: to drop too much from a cache is no harm.
        self._changed |= changed

    async def after_commit(self, _events: list[Envelope]) -> None:
        changed, self._changed = self._changed, set()
        if changed:
            await self._replica.changed(self._bus, sorted(changed))
