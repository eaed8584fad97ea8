"""`Kalends-Position`: where a write stands in its source, and waiting until a read can see it.

A position is `source:tx.position`; several are joined by commas. Outside it is opaque.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from kalends_shared import db as database
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.event_store import Position

LastEvent = Callable[[], Awaitable[Position]]
"""Where a source's last committed event stands, by the source itself."""

WAIT_SECONDS: Final = 2.0
MARGIN_SECONDS: Final = 0.1  # before the call's deadline, so that the refusal still arrives
POLL_SECONDS: Final = (0.005, 0.05)

SELECT_CHECKPOINT: Final = "SELECT tx, position FROM checkpoints WHERE source = $1"


def token(source: str, position: Position) -> str:
    return f"{source}:{position}"


def joined(*tokens: str | None) -> str | None:
    """Several tokens as one, or None where there is none."""
    return ",".join(filter(None, tokens)) or None


def parse(text: str) -> dict[str, Position]:
    """The positions by source, the highest where a source is named twice.

    Raises:
        KalendsError: `malformed`.
    """
    found: dict[str, Position] = {}
    for part in text.split(","):
        source, _, place = part.strip().partition(":")
        try:
            position = Position.parse(place)
        except ValueError as error:
            raise KalendsError("malformed", "Kalends-Min-Position is not one that Kalends has given.") from error
        found[source] = max(found.get(source, Position()), position)
    return found


class PositionWatch:
    """How far this service has got in one source, in whichever process its consumer runs.

    While somebody waits, the checkpoint is read out of the database every few milliseconds, once for all of them; in
    the process of the active consumer `advance` spares them that.
    """

    def __init__(self, db: database.Database, source: str) -> None:
        self._db, self._source = db, source
        self._at = Position()
        self._moved = asyncio.Event()
        self._waiters = 0
        self._poller: asyncio.Task[None] | None = None

    def advance(self, at: Position) -> None:
        """Says that the checkpoint was committed at `at`."""
        if at > self._at:
            self._at = at
            self._moved.set()
            self._moved = asyncio.Event()

    def reset(self, at: Position) -> None:
        """Says that the checkpoint is at `at`, even if it was seen further on: a crash takes unsynced commits back."""
        self._at = min(self._at, at)
        self.advance(at)

    async def wait(self, position: Position, seconds: float) -> bool:
        """Waits until the checkpoint is at or past `position`; False where it is not within so many seconds."""
        if self._at >= position:
            return True
        self._waiters += 1
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(seconds):
                while self._at < position:
                    await self._moved.wait()
        except TimeoutError:
            return False
        finally:
            self._waiters -= 1
        return True

    async def _poll(self) -> None:
        pause = POLL_SECONDS[0]
        while self._waiters:
            try:
                row = await self._db.pool.fetchrow(SELECT_CHECKPOINT, self._source)
            except Exception as error:
                if not database.transient(error):
                    raise
                row = None
            if row is not None:
                self.advance(Position(*row))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS[1])


async def wait_for(watches: Mapping[str, PositionWatch], call: Call, seconds: float = WAIT_SECONDS) -> None:
    """Waits until every source that the call's `min_position` names, and this service follows, has been read that far.

    Raises:
        KalendsError: `position_not_reached` where it has not been within `seconds` or the call's deadline; `malformed`.
    """
    if call.min_position is None:
        return
    until = time.time() + seconds
    if call.deadline:
        until = min(until, call.deadline - MARGIN_SECONDS)
    for source, position in parse(call.min_position).items():
        watch = watches.get(source)
        if watch is not None and not await watch.wait(position, max(until - time.time(), 0)):
            raise KalendsError("position_not_reached", "That write cannot be seen here yet.", retry_after=1)


async def caught_up(watch: PositionWatch, last_event: LastEvent, seconds: float) -> bool:
    """Waits until all that a source has committed by now is applied; False where it is not in time, or nobody answers.

    What a source shows of its tail would not do: an older transaction that is still open hides what was committed since.
    """
    try:
        async with asyncio.timeout(seconds):
            return await watch.wait(await last_event(), seconds)
    except (TimeoutError, KalendsError):
        return False
