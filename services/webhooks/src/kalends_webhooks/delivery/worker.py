"""A worker: claims what is due as far as there is room, sends it, and writes down what came of it, all in batches."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from kalends_shared import telemetry
from kalends_shared.db import Database, tolerant, transient
from kalends_webhooks.delivery import metrics
from kalends_webhooks.delivery.job import Clock, Job, Lane, wall
from kalends_webhooks.delivery.lanes import SLOW_SECONDS, Lanes
from kalends_webhooks.delivery.sender import Sender, Sent
from kalends_webhooks.delivery.targets import Targets
from kalends_webhooks.domain.outcome import TOO_MUCH, Next, judge
from kalends_webhooks.domain.subscription import Subscription
from kalends_webhooks.store import queue
from kalends_webhooks.store.queue import Ended, Wanted

CLAIM_MOST: Final = 200
FLUSH_MOST: Final = 500
POLL_SECONDS: Final = 1.0
COUNT_SECONDS: Final = 5.0
DEAD_SECONDS: Final = 6.0  # unseen for so long, a worker's claims are free; polls come once a second
LEASE_MARGIN: Final = 20  # seconds past the longest that an attempt and the writing of its result take
LONGEST_TIMEOUT: Final = 30
SOON_SECONDS: Final = 120.0  # retries as near as this are waited for in memory, to be on time
UNREADABLE_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 30.0
FLUSH_PAUSE: Final = (0.05, 2.0)

# What has to follow attempts that are written: (lane, reason) to disable, lanes that have failed.
Followed = Callable[[list[tuple[Lane, str]], set[Lane]], Awaitable[None]]


class Worker:
    """One process's part in delivery; `run` it once. It is also the dispatcher's Taker, where both roles are here."""

    def __init__(
        self,
        db: Database,
        targets: Targets,
        sender: Sender,
        follow: Followed,
        *,
        places: int,
        clock: Clock = wall,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._db, self._targets, self._sender, self._follow = db, targets, sender, follow
        self._clock, self._drain_seconds = clock, drain_seconds
        self._lanes = Lanes(places)
        self._name = secrets.token_hex(6)
        self._claims = 0
        self._wake = asyncio.Event()
        self._ended: list[tuple[Ended, Lane, Next]] = []
        self._flush = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        metrics.IN_FLIGHT.set_function(lambda: len(self._running))
        self._closing = False
        self._seen = 0.0  # when it last said that it lives, by the monotonic clock

    # --- what the dispatcher asks

    def reserve(self, subscription: Subscription) -> tuple[str, int] | None:
        wanted = subscription.wanted
        lane = Lane(subscription.tenant_id, subscription.id)
        # Bounds over all workers, and order, are judged by claiming.
        bounded = wanted.ordered or wanted.max_in_flight is not None or wanted.rate_limit_per_second is not None
        if bounded or self._closing or self._backed_up or not self._lanes.reserve(lane):
            return None
        if self._targets.known(lane, subscription.version) is None:
            self._targets.put(subscription)
        return f"{self._name}.0", wanted.timeout_seconds + LEASE_MARGIN

    def free(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._lanes.free(lane)

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            task = asyncio.create_task(self._deliver(job))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    # --- the worker's own loops

    def wake(self, lanes: Iterable[Lane]) -> None:
        """Says that these lanes have something due."""
        self._lanes.wake(lanes)
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`, then ends what is in flight, or gives it back; a failure of one loop ends all."""
        self._closing = False
        ending = asyncio.create_task(stop.wait())
        loops = [
            asyncio.create_task(loop()) for loop in (self._claiming, self._polling, self._flushing, self._counting)
        ]
        try:
            done, _ = await asyncio.wait([ending, *loops], return_when=asyncio.FIRST_COMPLETED)
            self._closing = True
            for task in done:
                if task is not ending:
                    task.result()
            await self._drain()
        finally:
            self._closing = True
            for task in (ending, *loops):
                task.cancel()
            await asyncio.gather(ending, *loops, return_exceptions=True)
        with tolerant("webhooks.leave_failed"):
            if freed := await queue.leaves(self._db.pool, self._name):
                telemetry.log("webhooks.given_back", "warning", deliveries=freed)

    async def _drain(self) -> None:
        """Lets attempts end and has their results written; those that take too long are cut off."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while self._running or self._ended:
                    self._flush.set()
                    await asyncio.sleep(0.02)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def _backed_up(self) -> bool:
        """Results that cannot be written must not grow without bound."""
        return len(self._ended) > 4 * FLUSH_MOST

    async def _claiming(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while not (self._closing or self._backed_up):
                chosen = self._lanes.choose(CLAIM_MOST)
                if not chosen:
                    break
                try:
                    self.start(await self._claim(chosen))
                except BaseException as error:
                    for lane, asked in chosen:
                        self._lanes.free(lane, asked)
                    if not transient(error):
                        raise
                    telemetry.log("webhooks.claim_failed", "warning", error=telemetry.brief(error))
                    await asyncio.sleep(FLUSH_PAUSE[1] / 4)

    async def _claim(self, chosen: list[tuple[Lane, int]]) -> list[Job]:
        self._claims += 1
        name, since = f"{self._name}.{self._claims}", time.monotonic()
        wanted = [Wanted(*lane, room, LONGEST_TIMEOUT + LEASE_MARGIN) for lane, room in chosen]
        jobs = [_job(row, name, since) for row in await queue.claim(self._db.pool, wanted, name)]
        await self._targets.load(jobs)
        got: dict[Lane, int] = {}
        for job in jobs:
            got[job.lane] = got.get(job.lane, 0) + 1
        for lane, asked in chosen:
            self._lanes.claimed(lane, asked, got.get(lane, 0))
            self._pace(lane, got.get(lane, 0))
        return jobs

    def _pace(self, lane: Lane, got: int) -> None:
        """Has a lane with a rate limit looked at again when it may go on."""
        target = self._targets.latest(lane)
        if got and target is not None and target.rate is not None:
            asyncio.get_running_loop().call_later(max(0.1, 1 / target.rate), self.wake, (lane,))

    async def _polling(self) -> None:
        """The floor below nudges: what came due by time, whose nudge was lost, or whose worker died."""
        well_since = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                # After an outage all have been unseen for long; so only who has been well that long judges others.
                judges = began - well_since > DEAD_SECONDS
                if freed := await queue.lives(self._db.pool, self._name, DEAD_SECONDS if judges else None):
                    telemetry.log("webhooks.freed", "warning", deliveries=freed)
                self._seen = began
                due = await queue.due_lanes(self._db.pool)
            except Exception as error:
                if not transient(error):
                    raise
                well_since = time.monotonic() + POLL_SECONDS
                telemetry.log("webhooks.poll_failed", "warning", error=telemetry.brief(error))
            else:
                self.wake(Lane(tenant, webhook) for tenant, webhook, _ in due)
                metrics.OLDEST.set(max((age for _, _, age in due), default=0.0))
                metrics.WAITING.set(
                    max((age for tenant, webhook, age in due if self._free(Lane(tenant, webhook))), default=0.0)
                )
            metrics.RESTING.set(self._lanes.resting())
            self._sender.sweep()
            await asyncio.sleep(POLL_SECONDS)

    def _free(self, lane: Lane) -> bool:
        """Tells whether a lane would be quicker with more workers: neither its endpoint nor its owner holds it back."""
        target = self._targets.latest(lane)
        bounded = target is not None and (target.ordered or target.cap is not None or target.rate is not None)
        return not bounded and not self._lanes.slow(lane)

    async def _counting(self) -> None:
        """The backlog, for operators to look at."""
        while True:
            with tolerant("webhooks.count_failed"):
                metrics.DUE.set(await queue.backlog(self._db.pool))
            await asyncio.sleep(COUNT_SECONDS)

    # --- one delivery

    async def _deliver(self, job: Job) -> None:
        target = self._targets.known(job.lane, job.subscription_version)
        if time.monotonic() - max(job.since, self._seen) > DEAD_SECONDS:
            await self._give_back(job, 0.0)  # this process stood still, and another may be sending it by now
            return
        if target is None and job.subscription_version is not None:
            await self._give_back(job, UNREADABLE_SECONDS)  # what cannot be signed just now waits
            return
        if target is None or not (target.enabled or job.forced):
            self._unsent(job)
            return
        late = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._lanes.suspect, job.lane)
        with telemetry.unit(
            "attempt",
            job.type,
            job.traceparent,
            delivery_id=job.id,
            webhook_id=job.lane.webhook_id,
            attempt=job.attempts + 1,
        ) as unit:
            try:
                sent = await self._sender.send(job, target)
            except BaseException:
                self._lanes.free(job.lane)
                raise
            finally:
                late.cancel()
            next_ = judge(sent.answer, job.attempts + 1, target.schedule, self._clock())
            unit.outcome = next_.status
            unit.fields |= {"status": sent.answer.status_code, "error": sent.answer.error}
        self._learn(job, sent, next_)
        self._end(job, Ended(job.lane.tenant_id, job.id, job.claim, next_.status, next_.wait, sent.log), next_)

    def _unsent(self, job: Job) -> None:
        """Ends what has nobody to go to any more."""
        self._lanes.free(job.lane)
        next_ = Next("failed")
        self._end(job, Ended(job.lane.tenant_id, job.id, job.claim, next_.status, next_.wait, job.log), next_)

    async def _give_back(self, job: Job, wait: float) -> None:
        """Leaves a delivery, unsent, to whoever claims it next."""
        self._lanes.free(job.lane)
        with tolerant("webhooks.give_back_failed"):  # else its lease ends
            await queue.give_back(self._db.pool, job.lane.tenant_id, job.id, job.claim, wait)

    def _learn(self, job: Job, sent: Sent, next_: Next) -> None:
        succeeded = next_.status == "succeeded"
        answered = sent.answer.status_code is not None and sent.answer.status_code not in TOO_MUCH
        self._lanes.ended(job.lane, answered=answered, succeeded=succeeded, seconds=sent.seconds)
        metrics.ATTEMPTS.labels(sent.answer.error or str(sent.answer.status_code)).inc()
        metrics.ATTEMPT_SECONDS.observe(sent.seconds)
        if succeeded and not job.attempts and not job.forced and job.lane.tenant_id.endswith("-live"):
            metrics.LATENCY.observe(max(time.time() - job.created_at.timestamp(), 0.0))

    def _end(self, job: Job, ended: Ended, next_: Next) -> None:
        self._ended.append((ended, job.lane, next_))
        self._flush.set()
        if self._lanes.waiting():
            self._wake.set()

    # --- results

    async def _flushing(self) -> None:
        pause = FLUSH_PAUSE[0]
        most = FLUSH_MOST
        while True:
            await self._flush.wait()
            self._flush.clear()
            while batch := self._ended[:most]:
                try:
                    written = await queue.finish(self._db.pool, [ended for ended, _, _ in batch], self._clock())
                except Exception as error:  # noqa: BLE001 - whatever it is, the others' results must get through
                    # A claim may be refused later, and then the delivery is made once more; it is never lost.
                    telemetry.log("webhooks.finish_failed", "warning", error=telemetry.brief(error))
                    if transient(error):
                        await asyncio.sleep(pause)
                        pause = min(pause * 2, FLUSH_PAUSE[1])
                    elif len(batch) > 1:
                        most = 1
                    else:
                        del self._ended[:1]
                    continue
                pause, most = FLUSH_PAUSE[0], min(most * 2, FLUSH_MOST)
                del self._ended[: len(batch)]
                await self._written(batch, written)

    async def _written(self, batch: list[tuple[Ended, Lane, Next]], written: set[str]) -> None:
        metrics.FENCED.inc(len(batch) - len(written))
        disable: dict[Lane, str] = {}
        failed: set[Lane] = set()
        for ended, lane, next_ in batch:
            if ended.id not in written:
                continue
            if next_.disable is not None:
                disable[lane] = next_.disable
            elif next_.status != "succeeded":
                failed.add(lane)
            target = self._targets.latest(lane)
            if target is not None and (target.ordered or target.cap is not None):
                self.wake((lane,))  # what waited for this one
            if next_.wait is not None and next_.wait <= SOON_SECONDS:
                asyncio.get_running_loop().call_later(next_.wait + 0.005, self.wake, (lane,))
        if disable or failed:
            # What is lost here the next attempt brings again; were it raised, every attempt under way would be cut off.
            with tolerant("webhooks.follow_failed"):
                await self._follow(list(disable.items()), failed)


def _job(row: Any, claim: str, since: float) -> Job:
    return Job(
        lane=Lane(row["tenant_id"], row["webhook_id"]),
        id=row["id"],
        claim=claim,
        event_id=row["event_id"],
        type=row["type"],
        created_at=row["created_at"],
        data=row["data"],
        attendees=row["attendees"],
        traceparent=row["traceparent"],
        subscription_version=row["subscription_version"],
        attempts=row["attempts"],
        log=row["log"],
        forced=row["forced"],
        since=since,
    )
