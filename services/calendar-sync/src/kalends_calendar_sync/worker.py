"""The loop of both workers: claims what is due as far as there is room, works on it, looks again when told or after a while."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from kalends_shared import telemetry
from kalends_shared.db import transient
from kalends_shared.service import wait

IDLE_SECONDS: Final = 0.5
END_SECONDS: Final = 10.0  # less than a process has to end
C = TypeVar("C")


class Worker(Generic[C]):
    """Runs `work(claim)` for what `claim(limit)` gives, at most `room` at a time.

    `work` ends its own claim; where it fails, the claim's lease runs out and somebody takes the work up again.
    """

    def __init__(
        self, claim: Callable[[int], Awaitable[Sequence[C]]], work: Callable[[C], Awaitable[None]], room: int
    ) -> None:
        self._claim, self._work, self._room = claim, work, room
        self._tasks: set[asyncio.Task[None]] = set()
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Says that something may be due."""
        self._awake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`, then lets what is under way end; what does not is cut off, and its lease brings it back."""
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._awake.set())
        try:
            while not stop.is_set():
                self._awake.clear()
                room = self._room - len(self._tasks)
                for claimed in await self._claim(room) if room > 0 else ():
                    task = asyncio.create_task(self._guarded(claimed))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                await wait(self._awake, IDLE_SECONDS)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=END_SECONDS)
        finally:
            stopping.cancel()
            if stop.is_set():
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, claimed: C) -> None:
        try:
            await self._work(claimed)
        except Exception as error:  # noqa: BLE001 (this is where it ends; the lease brings the work back)
            if transient(error):
                telemetry.log("worker.interrupted", "warning", error=telemetry.brief(error))
            else:
                telemetry.failed("worker.failed", error)
        finally:
            self._awake.set()
