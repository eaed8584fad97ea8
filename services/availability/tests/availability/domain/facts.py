"""An oracle's world, as the engine takes it."""

import json
from collections import defaultdict
from datetime import date, datetime
from typing import Any

from kalends_availability.domain import offer
from kalends_availability.domain.busy import (
    Counted,
    External,
    ExternalBusy,
    Facts,
    Reservation,
    Reservations,
    Tally,
)
from kalends_availability.domain.memo import BitMemo, bit_memo
from kalends_availability.domain.plan import Plan, Settings
from kalends_availability.domain.rules import Ask, View
from kalends_availability.domain.zones import day_of, minute_after, minute_of, zone

from .oracle import Taken, World


def plan_of(world: World, memo: BitMemo | None = None) -> Plan:
    return Plan(Settings(world.event_type, world.hosts, world.schedules, world.resources), memo or bit_memo())


def facts_of(world: World) -> Facts:
    hosts: dict[str, list[Reservation]] = defaultdict(list)
    units: dict[str, dict[int, list[Reservation]]] = defaultdict(lambda: defaultdict(list))
    counted: dict[str, list[Counted]] = defaultdict(list)
    for taken in world.taken:
        entry = _reservation(taken)
        for host in taken.host_ids:
            hosts[host].append(entry)
            if taken.event_type_id == world.event_type.id:
                counted[host].append(Counted(entry.start, entry.end, entry.id, entry.lapses))
        for resource, unit in taken.units:
            units[resource][unit].append(entry)
    return Facts(
        {id_: Reservations(entries) for id_, entries in hosts.items()},
        {
            id_: ExternalBusy(
                [External(minute_of(a), minute_after(b), "cev") for a, b in world.external.get(id_, [])],
                1.0 if id_ in world.stale else None,
            )
            for id_ in world.hosts
        },
        {id_: {n: Reservations(r) for n, r in by_unit.items()} for id_, by_unit in units.items()},
        {id_: Tally(entries) for id_, entries in counted.items()},
    )


def answer(plan: Plan, facts: Facts, ask: Ask, where: str, first: date, last: date, limit: int | None = None) -> Any:
    """The public answer, parsed."""
    days = day_of(first), day_of(last)
    frame = offer.frame_of(plan, ask, zone(where), *days)
    view = View(plan, facts, ask, frame) if frame else None
    return json.loads(offer.body(view, plan.event_type.id, zone(where), *days, limit, None))


def _reservation(taken: Taken) -> Reservation:
    low, high = taken.reserves
    lapses = taken.expires_at.timestamp() if taken.expires_at else None
    return Reservation(
        _minute(low),
        _minute(high),
        _minute(taken.start),
        _minute(taken.end),
        taken.id,
        taken.event_type_id,
        taken.seats,
        lapses,
    )


def _minute(at: datetime) -> int:
    return minute_of(at)
