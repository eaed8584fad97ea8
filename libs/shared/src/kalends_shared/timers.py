"""Durable timers: set in the transaction of what they belong to, fired once, in due order, by whichever replica is free.

A timer's key is `<stream id>/<what>`. Timers of one stream fire one after another, the earliest due first, also across
replicas; those of different streams fire together, many in one transaction, and where that fails each by itself. A claim
is an advisory lock that ends with the transaction of the effects; it takes no transaction id, so that the commands behind
timers still take the event store's locks before their first write. Expiry is to be judged at read and decide time as
well: a timer may be late.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
from prometheus_client import Counter, Histogram

from kalends_shared import telemetry
from kalends_shared.db import Connection, Database, tolerant, transient
from kalends_shared.service import wait

BATCH: Final = 100  # timers a transaction, which holds back every tail of the server while it writes
PAGE: Final = 4 * BATCH  # looked at, of which other replicas may be at work on most
POLL_SECONDS: Final = 1.0
MOST_RETRY_SECONDS: Final = 300
BUSY_SECONDS: Final = 0.02
_ERROR_LENGTH: Final = 2_000

FREEZE: Final = """
INSERT INTO clocks (tenant_id, frozen_at) VALUES ($1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET frozen_at = greatest(clocks.frozen_at, excluded.frozen_at)
"""
RELEASE: Final = "DELETE FROM clocks WHERE tenant_id = $1"
# CASE keeps the planner from an anti join, for which it reads and sorts every timer there is.
NEXT: Final = """
SELECT tenant_id, key, due_at, attempts, extract(epoch FROM wake_at - now())::float8 AS seconds FROM timers t
WHERE CASE WHEN EXISTS (SELECT 1 FROM clocks c WHERE c.tenant_id = t.tenant_id) THEN false ELSE true END
ORDER BY wake_at, tenant_id, key LIMIT $1
"""
NEXT_OF_TENANT: Final = """
SELECT tenant_id, key, due_at, attempts FROM timers WHERE tenant_id = $1 AND due_at <= $2 ORDER BY due_at, key LIMIT $3
"""
CLAIM: Final = """
SELECT tenant_id, key, due_at, kind, payload, attempts FROM claim_timers($1, $2, $3, $4) t
WHERE $5 OR NOT EXISTS (SELECT 1 FROM clocks c WHERE c.tenant_id = t.tenant_id)
"""
# Fired as claimed; one that its own firing has moved stays.
DONE: Final = """
DELETE FROM timers t USING unnest($1::text[], $2::text[], $3::timestamptz[]) AS d (tenant_id, key, due_at)
WHERE t.tenant_id = d.tenant_id AND t.key = d.key AND t.due_at = d.due_at
"""
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


class Key(NamedTuple):
    """A timer as it was seen before it was claimed."""

    tenant_id: str
    key: str
    due_at: datetime
    attempts: int


class Timer(msgspec.Struct, frozen=True):
    """A timer that is firing. `now` is the tenant's time, at or past `due_at`: what is due by then may happen as well."""

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


Fire = Callable[[Connection, Sequence[Timer]], Awaitable[Collection[Timer]]]
"""Makes the effects of timers of different streams, in the transaction given, in which nothing has been written yet.

Gives those that could not be fired now; the others are removed, unless their firing has moved or cancelled them itself.
"""


async def freeze(conn: Connection, tenant: str, at: datetime) -> None:
    """Stops a tenant's clock, or moves the stopped one forward: its timers no longer fire by themselves. See `fire_due`."""
    await conn.execute(FREEZE, tenant, at)


async def release(conn: Connection, tenant: str) -> None:
    """Lets a tenant's clock run again."""
    await conn.execute(RELEASE, tenant)


async def fire_due(db: Database, tenant: str, until: datetime, fire: Fire) -> int:
    """Fires a frozen tenant's timers up to `until`, in due order, those that firing sets too; returns how many.

    A batch is fired up to the time of its last timer, so `fire` has to order by time what its streams tell by then.

    Raises:
        Exception: what `fire` raised; the timers before it have fired.
    """
    count = alone = 0
    while True:
        limit = 1 if alone else BATCH
        alone = max(alone - 1, 0)
        due = [Key(*row) for row in await db.pool.fetch(NEXT_OF_TENANT, tenant, until, limit)]
        if not due:
            return count
        try:
            fired = await _in_order(db, due, until if len(due) < limit else due[-1].due_at, fire)
        except Exception as error:
            if len(due) == 1:
                raise
            # One by one, those before the one at fault fire, and that one raises.
            telemetry.log("timers.batch_failed", "warning", timers=len(due), error=telemetry.told(error))
            alone = len(due)
            continue
        _count(fired)
        count += len(fired)
        if not fired:
            await asyncio.sleep(BUSY_SECONDS)


async def _in_order(db: Database, due: list[Key], until: datetime, fire: Fire) -> list[Timer]:
    """Fires those before the first that somebody else is at work on."""
    async with db.transaction() as conn:
        rows = await _claim(conn, due, len(due), frozen=True)
        free = 0
        while free < len(rows) and (rows[free]["tenant_id"], rows[free]["key"]) == due[free][:2]:
            free += 1
        if not free:
            return []
        now = until if free == len(due) else due[free - 1].due_at
        with telemetry.unit("timer", "advance", tenant=due[0].tenant_id, timers=free):
            return await _settle(conn, [Timer(**dict(row), now=now) for row in rows[:free]], fire)


class TimerWorker:
    """Fires due timers; run one in every replica. `fired` is called after each commit.

    A firing that raises is rolled back and tried again after 1, 2, 4 ... 300 s, and the later timers of its stream wait
    for it; those that were to fire in the same transaction then fire each in one of its own.
    """

    def __init__(
        self, db: Database, fire: Fire, fired: Callable[[], Awaitable[None]] | None = None, *, concurrency: int = 2
    ) -> None:
        self._db, self._fire, self._fired = db, fire, fired
        self._concurrency = concurrency

    async def run(self, stop: asyncio.Event) -> None:
        """Looks for due timers until `stop` is set.

        Raises:
            Exception: one that is no passing trouble of the database.
        """
        while not stop.is_set():
            pause = POLL_SECONDS
            with tolerant("timers.interrupted"):
                pause = await self.look()
            await wait(stop, pause)

    async def look(self) -> float:
        """Fires what is due; returns the seconds until the next look, 0 where there may be more."""
        rows = await self._db.pool.fetch(NEXT, PAGE)
        due = [Key(*row[:4]) for row in rows if row["seconds"] <= 0]
        if not due:
            return min(max(rows[0]["seconds"], BUSY_SECONDS), POLL_SECONDS) if rows else POLL_SECONDS
        fresh = [key for key in due if not key.attempts]
        # What one transaction can fire it does, in due order. Of more, each part is more than a batch, so that replicas
        # which see the same page share it.
        among = self._concurrency if len(fresh) > BATCH else 1
        parts = [fresh[n::among] for n in range(among)]
        fired = await asyncio.gather(*(self._together(part) for part in parts if part), return_exceptions=True)
        for outcome in fired:
            if isinstance(outcome, BaseException):
                raise outcome
        # What has failed before would only spoil the batch.
        alone = [await self._together([key]) for key in due if key.attempts]
        # Where all were claimed by another replica, it is left to it for a moment.
        return 0 if any(fired) or any(alone) else BUSY_SECONDS

    async def _together(self, due: list[Key]) -> bool:
        """Fires as many of them as make a batch; False where nothing came of it."""
        claimed: list[Timer] = []
        try:
            async with self._db.transaction() as conn:
                rows = await _claim(conn, due, BATCH, frozen=False)
                if not rows:
                    return False
                # Due by the database's clock, which ours may be behind.
                now = max(datetime.now(UTC), *(row["due_at"] for row in rows))
                claimed = [Timer(**dict(row), now=now) for row in rows]
                about = {"tenant": claimed[0].tenant_id, "key": claimed[0].key} if len(claimed) == 1 else {}
                with telemetry.unit("timer", "fire", timers=len(claimed), **about):
                    fired = await _settle(conn, claimed, self._fire)
        except Exception as error:
            if len(claimed) > 1:
                telemetry.log("timers.batch_failed", "warning", timers=len(claimed), error=telemetry.told(error))
                return any([await self._together([Key(t.tenant_id, t.key, t.due_at, t.attempts)]) for t in claimed])
            if not claimed:
                raise
            await self._failed(claimed[0], error)
            return True
        _count(fired)
        for timer in fired:
            LATE.observe(max((timer.now - timer.due_at).total_seconds(), 0))
        if fired and self._fired is not None:
            await self._fired()
        return bool(fired)

    async def _failed(self, timer: Timer, error: Exception) -> None:
        FAILURES.inc()
        about = {"tenant": timer.tenant_id, "key": timer.key}
        if transient(error):
            telemetry.log("timer.interrupted", "warning", error=telemetry.brief(error), **about)
        else:
            telemetry.failed("timer.failed", error, **about)
        text = telemetry.told(error, _ERROR_LENGTH)
        await self._db.pool.execute(FAILED, timer.tenant_id, timer.key, timer.due_at, text, MOST_RETRY_SECONDS)


async def _claim(conn: Connection, due: list[Key], limit: int, *, frozen: bool) -> list[Any]:
    """The rows of at most `limit` of these timers, one a stream: those that are still there and that nobody is at work on.

    Timers of tenants whose clock stands still are left out, unless `frozen`.
    """
    rows: list[Any] = await conn.fetch(
        CLAIM, [key.tenant_id for key in due], [key.key for key in due], [key.due_at for key in due], limit, frozen
    )
    return rows


async def _settle(conn: Connection, claimed: list[Timer], fire: Fire) -> list[Timer]:
    """Fires the timers and removes them; returns those that have fired."""
    left = {(timer.tenant_id, timer.key) for timer in await fire(conn, claimed)}
    fired = [timer for timer in claimed if (timer.tenant_id, timer.key) not in left]
    await conn.execute(DONE, *([getattr(timer, name) for timer in fired] for name in ("tenant_id", "key", "due_at")))
    return fired


def _count(fired: Sequence[Timer]) -> None:
    for timer in fired:
        FIRED.labels(timer.kind).inc()
