"""The accounts' subscriptions, kept in memory by the dispatcher; `emit` tells which of them have grown old."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from kalends_shared.db import Connection
from kalends_webhooks.domain.subscription import Subscription
from kalends_webhooks.store import subscriptions

MOST_TENANTS: Final = 10_000

Known = tuple[int, list[Subscription]]


class Subscribers:
    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    async def of(self, conn: Connection, tenants: Iterable[str]) -> dict[str, Known]:
        """The version and subscriptions of each account, read where they are not known yet."""
        asked = list(tenants)
        missing = [tenant for tenant in asked if tenant not in self._known]
        if missing:
            self._known.update(await subscriptions.of_tenants(conn, missing))
        found = {tenant: self._known[tenant] for tenant in asked}
        for tenant in asked:
            self._known.move_to_end(tenant)
        while len(self._known) > MOST_TENANTS:
            self._known.popitem(last=False)
        return found

    def forget(self, tenants: Iterable[str]) -> None:
        for tenant in tenants:
            self._known.pop(tenant, None)
