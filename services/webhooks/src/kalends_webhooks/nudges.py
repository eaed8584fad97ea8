"""What wakes workers and streams of changes between their looks."""

from collections.abc import Collection
from typing import Final

import msgspec
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalends_shared import telemetry
from kalends_webhooks.delivery.job import Lane
from kalends_webhooks.delivery.worker import Worker

DUE: Final = "kalends.nudge.deliveries"
CHANGED: Final = "kalends.nudge.changes"


class Nudges:
    """Tells workers of lanes with something due, and the gateways of accounts with news; any of it may be lost."""

    def __init__(self, bus: Client) -> None:
        self._bus = bus
        self.worker: Worker | None = None

    async def send(self, lanes: Collection[Lane], tenants: Collection[str]) -> None:
        if self.worker is not None:
            self.worker.wake(lanes)
        try:
            if lanes:
                await self._bus.publish(DUE, msgspec.json.encode(list(lanes)))
            for tenant in tenants:
                await self._bus.publish(f"{CHANGED}.{tenant}")
        except nats_errors.Error:
            telemetry.log("nudge.lost", "warning")

    async def due(self, lane: Lane) -> None:
        await self.send([lane], [])

    async def wake(self, worker: Worker) -> None:
        """Has this process's worker hear of what is due, of others and, without a message, of its own."""
        self.worker = worker

        async def heard(message: Msg) -> None:
            worker.wake(msgspec.json.decode(message.data, type=list[Lane]))

        await self._bus.subscribe(DUE, cb=heard)
