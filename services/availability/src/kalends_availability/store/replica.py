"""What this replica keeps in memory: plans of event types, busy time, standings.

Correctness never depends on it being told of a change: a commit broadcasts its keys, and once a second `sweep` reads
out of the database what was changed by transactions that were not over at the last sweep. Keys name a tenant and a thing:
an object's id; `busy/<host or resource>`, `calendar/<host>`, `standing/<event type>`.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import Counter

from kalends_availability.domain.bits import Frame
from kalends_availability.domain.busy import ExternalBusy, Facts, Reservations, Tally
from kalends_availability.domain.memo import BitMemo, bit_memo
from kalends_availability.domain.plan import Plan
from kalends_availability.domain.rank import Standing
from kalends_availability.domain.zones import DAY
from kalends_availability.store import busy, settings
from kalends_availability.store.settings import Known
from kalends_availability.store.shelf import Key, Shelf
from kalends_shared import telemetry
from kalends_shared.db import Database, transient
from kalends_shared.service import wait

SUBJECT: Final = "kalends.changed.availability"
SWEEP_SECONDS: Final = 1.0
KEPT_SECONDS: Final = 120

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


class Since(Struct, Generic[T], frozen=True):
    """What was loaded from a minute on."""

    since: int
    value: T


class Replica:
    """The memory of one process. `megabytes` bounds it, roughly."""

    def __init__(self, db: Database, megabytes: int = 48) -> None:
        self._db = db
        self._bits: BitMemo = bit_memo(megabytes * 300_000)
        share = megabytes * 100_000
        self._plans: Shelf[Known] = Shelf(share, lambda known: 2_000 + 1_500 * len(known.ids))
        self._hosts: Shelf[Since[Reservations]] = Shelf(share, lambda found: 400 + 250 * len(found.value.entries))
        self._units: Shelf[Since[dict[int, Reservations]]] = Shelf(
            share, lambda found: 400 + sum(400 + 250 * len(r.entries) for r in found.value.values())
        )
        self._tallies: Shelf[Since[Tally]] = Shelf(share, lambda found: 400 + 300 * len(found.value.entries))
        self._external: Shelf[Since[ExternalBusy]] = Shelf(share, lambda found: 400 + 200 * len(found.value.entries))
        self._standings: Shelf[dict[str, Standing]] = Shelf(
            share, lambda found: 400 + sum(100 + 8 * len(s.created) for s in found.values())
        )
        self._horizon: int | None = None
        self._listeners: list[Callable[[], None]] = []

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

    async def facts(self, tenant: str, plan: Plan, frame: Frame, hosts: Sequence[str], *, booked: bool = True) -> Facts:
        """What the rules read: all of it, or, without `booked`, external busy time alone (which is what quote judges)."""
        # A few days more, so that the frame may move on, and questions of earlier days find what they need.
        since = frame.base - 4 * DAY
        pool = self._db.pool
        external = await _of(self._external, tenant, hosts, since, lambda ids, at: busy.external(pool, tenant, ids, at))
        if not booked:
            return Facts(external=external)
        reserved = await _of(
            self._hosts, tenant, hosts, since, lambda ids, at: busy.reservations(pool, tenant, ids, at)
        )
        units: dict[str, dict[int, Reservations]] = {}
        if plan.resources:
            names = [resource.id for resource in plan.resources]
            units = await _of(self._units, tenant, names, since, lambda ids, at: busy.units(pool, tenant, ids, at))
        tallies: dict[str, Tally] = {}
        if plan.event_type.limits:
            kind = plan.event_type.id
            first = settings.first_period(plan, frame)
            tallies = await _of(
                self._tallies, tenant, hosts, first,
                lambda ids, at: busy.tallies(pool, tenant, ids, at, kind), kind,
            )  # fmt: skip
        return Facts(reserved, external, units, tallies)

    async def standings(self, tenant: str, plan: Plan, now: datetime) -> dict[str, Standing]:
        """How hosts stand in the ranking; nothing is asked where there is nothing to rank."""
        if len(plan.hosts) == 1 or plan.event_type.assignment == "collective":
            return {}
        key = (tenant, plan.event_type.id)

        async def load(_keys: list[Key]) -> dict[Key, dict[str, Standing]]:
            ids = [host.id for host in plan.hosts]
            return {key: await busy.standings(self._db.pool, tenant, plan.event_type.id, ids, now)}

        return (await self._standings.many([key], load, lambda _found: True))[key]

    async def plan_at(self, tenant: str, event_type_id: str, at: datetime) -> Plan | None:
        """The plan of an event type as it was at a moment, out of the events."""
        return await settings.plan_at(self._db.pool, tenant, event_type_id, at, self._bits)

    async def facts_at(self, tenant: str, plan: Plan, frame: Frame, hosts: Sequence[str], at: datetime) -> Facts:
        """What the rules read, as it was seen at a moment; nothing of it is kept."""
        pool, since = self._db.pool, frame.base - 4 * DAY
        kind = plan.event_type.id
        names = [resource.id for resource in plan.resources]
        return Facts(
            await busy.reservations(pool, tenant, hosts, since, at),
            await busy.external(pool, tenant, hosts, since, at),
            await busy.units(pool, tenant, names, since, at) if names else {},
            await busy.tallies(pool, tenant, hosts, settings.first_period(plan, frame), kind, at)
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
                # A host that is new in an event type has no standing yet.
                self._standings.drop((tenant, key))
            elif what == "busy":
                self._hosts.drop((tenant, id_))
                self._units.drop((tenant, id_))
                self._tallies.drop_where(lambda at, _: at[:2] == (tenant, id_))  # noqa: B023 - called at once
            elif what == "calendar":
                self._external.drop((tenant, id_))
            else:
                self._standings.drop((tenant, id_))

    async def changed(self, bus: Client, changes: Sequence[Changed]) -> None:
        """Drops what a commit of this process has changed, and tells the other replicas."""
        self.forget(changes)
        try:
            await bus.publish(SUBJECT, msgspec.json.encode(list(changes)))
        except Exception as error:  # noqa: BLE001 - the sweep catches what a broadcast lost
            telemetry.log("broadcast.lost", "warning", error=f"{type(error).__name__}: {error}")

    async def listen(self, bus: Client) -> None:
        """Hears the broadcasts of all replicas."""

        async def hear(message: Msg) -> None:
            self.forget(_CHANGES.decode(message.data))

        await bus.subscribe(SUBJECT, cb=hear)

    async def sweep(self) -> None:
        """Drops what was changed by any transaction that was not over at the last sweep: nothing is missed, whatever the order."""
        if self._horizon is None:
            horizon = await self._db.pool.fetchval(HORIZON)
            self._plans.clear()
            for shelf in (self._hosts, self._units, self._tallies, self._external, self._standings):
                shelf.drop_where(lambda _key, _value: True)
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


async def _of(
    shelf: Shelf[Since[T]],
    tenant: str,
    ids: Sequence[str],
    since: int,
    load: Callable[[list[str], int], Any],
    *more: str,
) -> dict[str, T]:
    """The values of ids, as far back as `since`."""

    async def loaded(keys: list[Key]) -> dict[Key, Since[T]]:
        found: dict[str, T] = await load([key[1] for key in keys], since)
        return {key: Since(since, found[key[1]]) for key in keys}

    keys = [(tenant, id_, *more) for id_ in ids]
    found = await shelf.many(keys, loaded, lambda kept: kept.since <= since + 3 * DAY)
    return {key[1]: kept.value for key, kept in found.items()}
