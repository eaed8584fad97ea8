"""What this replica keeps in memory: plans of event types, busy time, standings.

Correctness never depends on it being told of a change: a commit broadcasts its keys, and once a second `sweep` reads
out of the database what was changed by transactions that were not over at the last sweep. Keys name a tenant and a thing:
an object's id; `busy/<host or resource>`, `calendar/<host>`, `standing/<event type>/<host>`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import Counter

from kalends_availability.domain.bits import Frame
from kalends_availability.domain.busy import ExternalBusy, Facts, Reserved, Tally, near
from kalends_availability.domain.memo import BitMemo, bit_memo
from kalends_availability.domain.plan import Plan
from kalends_availability.domain.rank import DAYS_SECONDS, Standing
from kalends_availability.domain.zones import DAY, minute_of
from kalends_availability.store import busy, settings
from kalends_availability.store.busy import Stretch
from kalends_availability.store.settings import Known
from kalends_availability.store.shelf import Key, Shelf
from kalends_shared import telemetry
from kalends_shared.db import Database, transient
from kalends_shared.service import wait

SUBJECT: Final = "kalends.changed.availability"
NAMED: Final = "named"
# More is loaded than is asked for, so that the frame may move on and a calendar be leafed through.
SPARE: Final = Stretch(DAY, 28 * DAY)
SWEEP_SECONDS: Final = 1.0
KEPT_SECONDS: Final = 120
COUNTED_MINUTES: Final = int(DAYS_SECONDS) // 60

HORIZON: Final = "SELECT tail_horizon()"
CHANGED: Final = """
SELECT tail_horizon() AS horizon, NULL AS tenant_id, NULL AS key
UNION ALL SELECT NULL, t.tenant_id, t.key FROM touched t WHERE t.tx >= $1
UNION ALL SELECT NULL, e.tenant_id, e.stream_id FROM events e WHERE e.tx >= $1
"""
PRUNE: Final = "DELETE FROM touched WHERE tx < $1 AND at < now() - make_interval(secs => $2)"

SWEPT: Final = Counter("kalends_availability_swept_total", "Keys found changed by a sweep.")

T = TypeVar("T")
Changed = tuple[str, str]
_CHANGES: Final = msgspec.json.Decoder(list[Changed])


class Loaded(Struct, Generic[T], frozen=True):
    """What was loaded of a stretch of time."""

    stretch: Stretch
    value: T

    def covers(self, stretch: Stretch) -> bool:
        return self.stretch.since <= stretch.since and stretch.until <= self.stretch.until


class Replica:
    """The memory of one process. `megabytes` bounds it, roughly."""

    def __init__(self, db: Database, megabytes: int = 48) -> None:
        self._db = db
        self._bits: BitMemo = bit_memo(megabytes * 300_000)
        share = megabytes * 100_000
        self._plans: Shelf[Known] = Shelf(share, lambda known: 2_000 + 1_500 * len(known.ids))
        # Of hosts and resources: by their id, and by id and `NAMED` with who has reserved.
        self._hosts: Shelf[Loaded[Reserved]] = Shelf(share, lambda found: found.value.weight)
        self._units: Shelf[Loaded[Mapping[int, Reserved]]] = Shelf(
            share, lambda found: 400 + sum(one.weight for one in found.value.values())
        )
        self._tallies: Shelf[Loaded[Tally]] = Shelf(share, lambda found: found.value.weight)
        self._external: Shelf[Loaded[ExternalBusy]] = Shelf(share, lambda found: found.value.weight)
        self._standings: Shelf[Loaded[Standing]] = Shelf(share, lambda found: 400 + 8 * len(found.value.created))
        self._shelves: tuple[Shelf[Any], ...] = (
            self._plans, self._hosts, self._units, self._tallies, self._external, self._standings
        )  # fmt: skip
        self._horizon: int | None = None

    # --- what is asked of it

    async def plan(self, tenant: str, event_type_id: str) -> Plan | None:
        """The plan of an event type; None where there is none of that id."""
        key = (tenant, event_type_id)
        if (known := self._plans.get(key)) is not None:
            return known.plan

        async def load(_keys: list[Key]) -> dict[Key, Known]:
            found = await settings.known(self._db.pool, tenant, event_type_id, self._bits)
            return {key: found} if found else {}

        found = (await self._plans.many([key], load, lambda _known: True)).get(key)
        return found.plan if found else None

    async def facts(
        self, tenant: str, plan: Plan, frame: Frame, hosts: Sequence[str], *, booked: bool = True, named: bool = False
    ) -> Facts:
        """What the rules read.

        Without `booked` external busy time alone, which is what quote judges; with `named` also who has reserved.
        """
        pool = self._db.pool
        around = _around(frame)
        external = await _of(
            self._external, tenant, hosts, around, lambda ids, when: busy.external(pool, tenant, ids, when)
        )
        if not booked:
            return Facts(external=external)
        # Seats are told by who sits where.
        named = named or plan.event_type.capacity > 1
        more, of_hosts, of_units = (
            ((NAMED,), busy.reservations, busy.unit_reservations) if named else ((), busy.reserved, busy.units)
        )
        reserved = await _of(
            self._hosts, tenant, hosts, around, lambda ids, when: of_hosts(pool, tenant, ids, when), *more
        )
        units: dict[str, Mapping[int, Reserved]] = {}
        if plan.resources:
            names = [resource.id for resource in plan.resources]
            units = await _of(
                self._units, tenant, names, around, lambda ids, when: of_units(pool, tenant, ids, when), *more
            )
        tallies: dict[str, Tally] = {}
        if plan.event_type.limits:
            kind = plan.event_type.id
            tallies = await _of(
                self._tallies, tenant, hosts, settings.counted(plan, frame),
                lambda ids, when: busy.tallies(pool, tenant, ids, when, kind), kind,
            )  # fmt: skip
        return Facts(reserved, external, units, tallies)

    async def standings(self, tenant: str, plan: Plan, now: datetime) -> dict[str, Standing]:
        """How hosts stand in the ranking; nothing is asked where there is nothing to rank."""
        if len(plan.hosts) == 1 or plan.event_type.assignment == "collective":
            return {}
        pool, kind = self._db.pool, plan.event_type.id
        return await _of(
            self._standings, tenant, [host.id for host in plan.hosts], Stretch(minute_of(now) - COUNTED_MINUTES, 0),
            lambda ids, when: busy.standings(pool, tenant, ids, when, kind), kind,
        )  # fmt: skip

    async def plan_at(self, tenant: str, event_type_id: str, at: datetime) -> Plan | None:
        """The plan of an event type as it was at a moment, out of the events."""
        return await settings.plan_at(self._db.pool, tenant, event_type_id, at, self._bits)

    async def facts_at(self, tenant: str, plan: Plan, frame: Frame, hosts: Sequence[str], at: datetime) -> Facts:
        """What the rules read, as it was seen at a moment; nothing of it is kept."""
        pool, around = self._db.pool, _around(frame)
        kind = plan.event_type.id
        names = [resource.id for resource in plan.resources]
        return Facts(
            await busy.reservations(pool, tenant, hosts, around, at),
            await busy.external(pool, tenant, hosts, around, at),
            await busy.unit_reservations(pool, tenant, names, around, at) if names else {},
            await busy.tallies(pool, tenant, hosts, settings.counted(plan, frame), kind, at)
            if plan.event_type.limits
            else {},
        )

    # --- changes

    def forget(self, changes: Iterable[Changed]) -> None:
        """Drops what has changed."""
        for tenant, key in changes:
            what, slash, id_ = key.partition("/")
            if not slash:
                self._plans.drop_where(lambda at, known: at[0] == tenant and key in known.ids)  # noqa: B023 - called at once
            elif what == "busy":
                for shelf in (self._hosts, self._units):
                    shelf.drop((tenant, id_))
                    shelf.drop((tenant, id_, NAMED))
                self._tallies.drop_where(lambda at, _: at[:2] == (tenant, id_))  # noqa: B023 - called at once
            elif what == "calendar":
                self._external.drop((tenant, id_))
            else:
                kind, _, host = id_.partition("/")
                self._standings.drop((tenant, host, kind))

    def clear(self) -> None:
        """Drops everything."""
        for shelf in self._shelves:
            shelf.clear()

    @property
    def weight(self) -> int:
        """Bytes that all of it takes, roughly."""
        return sum(shelf.weight for shelf in self._shelves)

    async def changed(self, bus: Client, changes: Sequence[Changed]) -> None:
        """Drops what a commit of this process has changed, and tells the other replicas."""
        self.forget(changes)
        try:
            await bus.publish(SUBJECT, msgspec.json.encode(list(changes)))
        except Exception as error:  # noqa: BLE001 - the sweep catches what a broadcast lost
            telemetry.log("broadcast.lost", "warning", error=telemetry.brief(error))

    async def listen(self, bus: Client) -> None:
        """Hears the broadcasts of all replicas."""

        async def hear(message: Msg) -> None:
            self.forget(_CHANGES.decode(message.data))

        await bus.subscribe(SUBJECT, cb=hear)

    async def sweep(self) -> None:
        """Drops what was changed by any transaction that was not over at the last sweep: nothing is missed, whatever the order."""
        if self._horizon is None:
            horizon = await self._db.pool.fetchval(HORIZON)
            self.clear()
            self._horizon = horizon
            return
        rows = await self._db.pool.fetch(CHANGED, self._horizon)
        changes = [(row["tenant_id"], row["key"]) for row in rows if row["key"] is not None]
        self.forget(changes)
        SWEPT.inc(len(changes))
        self._horizon = max(self._horizon, rows[0]["horizon"])

    async def keep_swept(self, stop: asyncio.Event) -> None:
        """Sweeps every second, and prunes what no sweep needs any more."""
        sweeps = 0
        while not await wait(stop, SWEEP_SECONDS):
            try:
                await self.sweep()
                sweeps += 1
                if sweeps % 30 == 0 and self._horizon is not None:
                    await self._db.pool.execute(PRUNE, self._horizon, KEPT_SECONDS)
            except Exception as error:
                # What is in memory can no longer be trusted to be a second old at most.
                self._horizon = None
                if not transient(error):
                    raise
                telemetry.log("replica.not_swept", "warning", error=telemetry.brief(error))


def _around(frame: Frame) -> Stretch:
    """What may matter to a frame: whatever begins before `high` ends within the longest time that can be reserved."""
    low, high = near(frame)
    return Stretch(low, high + 3 * DAY)


async def _of(
    shelf: Shelf[Loaded[T]],
    tenant: str,
    ids: Sequence[str],
    needed: Stretch,
    load: Callable[[list[str], Stretch], Awaitable[dict[str, T]]],
    *more: str,
) -> dict[str, T]:
    """The values of ids, of the stretch that is needed at least; what is loaded anew reaches as far as what was there."""

    async def loaded(keys: list[Key]) -> dict[Key, Loaded[T]]:
        before = [kept.stretch for key in keys if (kept := shelf.get(key)) is not None]
        stretch = Stretch(
            min([needed.since - SPARE.since, *(one.since for one in before)]),
            max([needed.until + SPARE.until, *(one.until for one in before)]),
        )
        found = await load([key[1] for key in keys], stretch)
        return {key: Loaded(stretch, found[key[1]]) for key in keys}

    keys = [(tenant, id_, *more) for id_ in ids]
    found = await shelf.many(keys, loaded, lambda kept: kept.covers(needed))
    return {key[1]: kept.value for key, kept in found.items()}
