"""What is left to do of an erasure behind its event: receivers' answers in the log, which may tell of the person."""

import asyncio
from typing import Final

import msgspec

from kalends_shared.contracts.webhooks import Attempt, Delivery
from kalends_shared.db import Database
from kalends_shared.service import wait
from kalends_webhooks.store import scrubs

LOOK_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 300.0  # past every attempt that was under way when the person was erased
MOST: Final = 200

_log: Final = msgspec.json.Decoder(list[Attempt])
_delivery: Final = msgspec.json.Decoder(Delivery)


class Scrubbing:
    """Works off erasures, a batch a transaction; every replica may."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self.once():
                await wait(stop, LOOK_SECONDS)

    async def once(self) -> bool:
        """One batch of one erasure; False where none is due."""
        async with self._db.transaction() as conn:
            erasure = await scrubs.due(conn)
            if erasure is None:
                return False
            if await scrubs.logs(conn, *erasure, scrub_log, MOST) < MOST:
                await scrubs.replies(conn, *erasure, scrub_reply)
                await scrubs.done(conn, *erasure, AGAIN_SECONDS)
        return True


def scrub_log(log: bytes) -> bytes:
    """A log of attempts without what was answered."""
    return msgspec.json.encode([msgspec.structs.replace(attempt, response_head=None) for attempt in _log.decode(log)])


def scrub_reply(body: bytes) -> bytes:
    """A stored reply, which is a delivery, without what was answered."""
    delivery = _delivery.decode(body)
    delivery.attempts = [msgspec.structs.replace(attempt, response_head=None) for attempt in delivery.attempts]
    return msgspec.json.encode(delivery)
