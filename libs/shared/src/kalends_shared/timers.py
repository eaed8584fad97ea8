"""Durable timers: set in the transaction of what they belong to, fired once, in due order, by whichever replica is free.

A timer's key is `<stream id>/<what>`. Timers of one stream fire one after another, the earliest due first, also across
replicas. A claim is an advisory lock that ends with the transaction of the effects; it takes no transaction id, so that
the command behind a timer still takes the event store's locks before its first write. Expiry is to be judged at read
and decide time as well: a timer may be late.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from prometheus_client import Counter, Histogram

from kalends_shared import telemetry
from kalends_shared.db import Connection, Database, transient

PAGE: Final = 100
POLL_SECONDS: Final = 1.0
MOST_RETRY_SECONDS: Final = 300
BUSY_SECONDS: Final = 0.02
_ERROR_LENGTH: Final = 2_000

SET: Final = "SELECT set_timer($1, $2, $3, $4, $5)"
CANCEL: Final = "SELECT cancel_timers($1, $2)"
FREEZE: Final = """
INSERT INTO clocks (tenant_id, frozen_at) VALUES ($1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET frozen_at = greatest(clocks.frozen_at, excluded.frozen_at)
"""
RELEASE: Final = "DELETE FROM clocks WHERE tenant_id = $1"
# CASE keeps the planner from an anti join, for which it reads and sorts every timer there is.
NEXT: Final = """
SELECT tenant_id, key, due_at, extract(epoch FROM wake_at - now())::float8 AS seconds FROM timers t
WHERE CASE WHEN EXISTS (SELECT 1 FROM clocks c WHERE c.tenant_id = t.tenant_id) THEN false ELSE true END
ORDER BY wake_at, tenant_id, key LIMIT $1
"""
NEXT_OF_TENANT: Final = """
SELECT tenant_id, key, due_at FROM timers WHERE tenant_id = $1 AND due_at <= $2 ORDER BY due_at, key LIMIT 1
"""
CLAIM: Final = """
SELECT tenant_id, key, due_at, kind, payload, attempts FROM claim_timer($1, $2, $3)
WHERE $4 OR NOT EXISTS (SELECT 1 FROM clocks c WHERE c.tenant_id = $1)
"""
# Fired as claimed; one that its own firing has moved stays.
DONE: Final = "DELETE FROM timers WHERE tenant_id = $1 AND key = $2 AND due_at = $3"
FAILED: Final = """
UPDATE timers SET attempts = attempts + 1, error = $4,
    wake_at = now() + make_interval(secs => least(power(2, least(attempts, 10)), $5))
WHERE tenant_id = $1 AND key = $2 AND due_at = $3
"""

FIRED: Final = Counter("kalends_timers_fired_total", "Timers fired.", ["kind"])
FAILURES: Final = Counter("kalends_timers_failed_total", "Firings that failed and will be tried again.")
LATE: Final = Histogram(
    "kalends_timers_late_seconds", "How late timers fired.", buckets=(0.1, 0.5, 1, 2, 5, 15, 60, 300, 3600)
)


class Timer(msgspec.Struct, frozen=True):
    """A timer that is firing. `now` is the tenant's time: the wall clock's, or `due_at` where a test clock is moved over it."""

    tenant_id: str
    key: str
    due_at: datetime
    kind: str
    payload: bytes
    attempts: int
    now: datetime

    @property
    def stream_id(self) -> str:
        return self.key.partition("/")[0]


# True where the firing has itself moved or cancelled the timer, so that there is nothing left of it to be removed.
Fire = Callable[[Connection, Timer], Awaitable[bool | None]]


async def set_timer(conn: Connection, tenant: str, key: str, due_at: datetime, kind: str, payload: Any = None) -> None:
    """Sets a timer, or moves the one of that key; `payload` is what `fire` will need, JSON-able. Part of the transaction.

    A service's own SQL function calls `set_timer` or `set_timers` (sql/timers).
    """
    await conn.execute(SET, tenant, key, due_at, kind, msgspec.json.encode(payload))


async def cancel(conn: Connection, tenant: str, keys: Sequence[str]) -> None:
    """Cancels timers, those that are not there too."""
    await conn.execute(CANCEL, tenant, list(keys))


async def freeze(conn: Connection, tenant: str, at: datetime) -> None:
    """Stops a tenant's clock, or moves the stopped one forward: its timers no longer fire by themselves. See `fire_due`."""
    await conn.execute(FREEZE, tenant, at)


async def release(conn: Connection, tenant: str) -> None:
    """Lets a tenant's clock run again."""
    await conn.execute(RELEASE, tenant)


async def fire_due(db: Database, tenant: str, until: datetime, fire: Fire) -> int:
    """Fires a frozen tenant's timers up to `until`, one by one in due order, those that firing sets too; returns how many.

    Raises:
        Exception: what `fire` raised; the timers before it have fired.
    """
    count = 0
    while (row := await db.pool.fetchrow(NEXT_OF_TENANT, tenant, until)) is not None:
        if await _fire(db, tuple(row), fire, row["due_at"]):
            count += 1
        else:
            await asyncio.sleep(BUSY_SECONDS)
    return count


class TimerWorker:
    """Fires due timers; run one in every replica.

    `fire(conn, timer)` makes the effects, in the transaction given, in which nothing has been written yet. A firing that
    raises is rolled back and tried again after 1, 2, 4 ... 300 s, and the later timers of its stream wait for it.
    """

    def __init__(self, db: Database, fire: Fire, *, concurrency: int = 2) -> None:
        self._db, self._fire = db, fire
        self._turn = asyncio.Semaphore(concurrency)
        self._woken = asyncio.Event()
        self._met = False

    def wake(self) -> None:
        """Says that a timer was set that may be due before the next look, which is at most a second away."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Looks for due timers until `stop` is set.

        Raises:
            Exception: one that is no passing trouble of the database.
        """
        while not stop.is_set():
            pause = POLL_SECONDS
            try:
                pause = await self.look()
            except Exception as error:
                if not transient(error):
                    raise
                telemetry.log("timers.interrupted", "warning", error=f"{type(error).__name__}: {error}")
            if pause:
                await self._sleep(stop, pause)

    async def look(self) -> float:
        """Fires what is due; returns the seconds until the next look, 0 where there may be more."""
        rows = await self._db.pool.fetch(NEXT, PAGE)
        due = [row for row in rows if row["seconds"] <= 0]
        if not due:
            return min(max(rows[0]["seconds"], BUSY_SECONDS), POLL_SECONDS) if rows else POLL_SECONDS
        # Replicas begin at different places, and look again where they meet what another has claimed: so they share a
        # backlog instead of running after each other through it.
        begin = random.randrange(len(due))
        streams: dict[tuple[str, str], list[tuple[str, str, datetime]]] = defaultdict(list)
        for tenant, key, due_at, _ in due[begin:] + due[:begin]:
            streams[tenant, key.partition("/")[0]].append((tenant, key, due_at))
        self._met = False
        fired = await asyncio.gather(
            *(self._stream(sorted(keys, key=lambda k: (k[2], k[1]))) for keys in streams.values())
        )
        # Where all were claimed by another replica, it is left to it for a moment.
        return 0 if any(fired) else BUSY_SECONDS

    async def _stream(self, keys: list[tuple[str, str, datetime]]) -> bool:
        """The due timers of one stream, in their order; False where nothing came of it."""
        moved = False
        for key in keys:
            async with self._turn:
                if self._met:
                    return moved
                try:
                    if not await _fire(self._db, key, self._fire, None):
                        self._met = True
                        return moved
                except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                    FAILURES.inc()
                    if transient(error):
                        telemetry.log(
                            "timer.interrupted",
                            "warning",
                            tenant=key[0],
                            key=key[1],
                            error=f"{type(error).__name__}: {error}",
                        )
                    else:
                        telemetry.failed("timer.failed", error, tenant=key[0], key=key[1])
                    text = telemetry.told(error, _ERROR_LENGTH)
                    await self._db.pool.execute(FAILED, *key, text, MOST_RETRY_SECONDS)
                    return True
                moved = True
        return moved

    async def _sleep(self, stop: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._woken.wait())]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._woken.clear()


async def _fire(db: Database, key: tuple[Any, ...], fire: Fire, now: datetime | None) -> bool:
    """One timer, in a transaction; False where it is gone, has moved, or another replica is at work on its stream.

    Without `now` it fires by the wall clock, unless its tenant's clock stands still.
    """
    async with db.transaction() as conn:
        row = await conn.fetchrow(CLAIM, *key, now is not None)
        if row is None:
            return False
        wall = datetime.now(UTC)
        timer = Timer(**dict(row), now=now or wall)
        with telemetry.unit("timer", timer.kind, tenant=timer.tenant_id, key=timer.key):
            settled = await fire(conn, timer)
        if not settled:
            await conn.execute(DONE, *key)
    FIRED.labels(timer.kind).inc()
    if now is None:
        LATE.observe(max((wall - timer.due_at).total_seconds(), 0))
    return True
