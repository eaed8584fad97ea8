"""Plans of event types: out of the objects as they are, or out of the events as they were."""

from calendar import monthrange
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from kalends_availability.domain.bits import Frame
from kalends_availability.domain.memo import BitMemo
from kalends_availability.domain.plan import Plan, Settings
from kalends_availability.domain.zones import DAY, date_of, day_of
from kalends_availability.store import objects
from kalends_availability.store.busy import Stretch
from kalends_availability.store.objects import Conn
from kalends_shared.contracts.availability import EventType, Host, Location, Resource, Schedule

# The state of streams after the last event that had happened at a moment; null of what was deleted.
STATES_AT: Final = """
SELECT DISTINCT ON (stream_id) stream_id, state FROM events
WHERE tenant_id = $1 AND stream_id = ANY ($2) AND occurred_at <= $3
ORDER BY stream_id, version DESC
"""

_READ: Final[dict[str, Any]] = {
    "hst": msgspec.json.Decoder(Host | None),
    "sch": msgspec.json.Decoder(Schedule | None),
    "res": msgspec.json.Decoder(Resource | None),
    "loc": msgspec.json.Decoder(Location | None),
    "evt": msgspec.json.Decoder(EventType | None),
}
T = TypeVar("T", Host, Schedule, Resource, Location)
_JOINED: Final = msgspec.json.Decoder(dict[str, float])


class Known(Struct, frozen=True):
    """A plan, and the ids of all objects that went into it."""

    plan: Plan
    ids: frozenset[str]


async def known(conn: Conn, tenant: str, event_type_id: str, bits: BitMemo) -> Known | None:
    """The plan as it is; None where there is no such event type."""
    if not _is_event_type(event_type_id):
        return None
    rows = await objects.family(conn, tenant, event_type_id)
    found = {row.id: _READ[row.id[:3]].decode(row.body) for row in rows}
    aside = next((row.aside for row in rows if row.id == event_type_id), None)
    settings = _settings(event_type_id, found, _JOINED.decode(aside) if aside is not None else {})
    return None if settings is None else Known(Plan(settings, bits), frozenset(found))


async def plan_at(conn: Conn, tenant: str, event_type_id: str, at: datetime, bits: BitMemo) -> Plan | None:
    """The plan as it was at a moment; None where there was no such event type."""
    if not _is_event_type(event_type_id):
        return None
    found: dict[str, Any] = {}
    wanted = [event_type_id]
    while wanted:
        for row in await conn.fetch(STATES_AT, tenant, wanted, at):
            state = _READ[row["stream_id"][:3]].decode(row["state"])
            if state is not None:
                found[row["stream_id"]] = state
        wanted = sorted({id_ for one in found.values() for id_ in _named(one)} - found.keys() - set(wanted))
    settings = _settings(event_type_id, found, {})
    return None if settings is None else Plan(settings, bits)


def _is_event_type(id_: str) -> bool:
    """A caller may well name a host or a page, whose rows are found by their ids just so."""
    return id_.startswith("evt_")


def _named(one: Any) -> list[str]:
    """What a plan needs of what an object names."""
    if isinstance(one, EventType):
        schedules = [id_ for id_ in (one.schedule_id, one.restriction_schedule_id) if id_ is not None]
        return [*(host.host_id for host in one.hosts), *schedules, *one.resource_ids, *one.location_ids]
    return [one.schedule_id] if isinstance(one, Host) and one.schedule_id is not None else []


def _settings(event_type_id: str, found: Mapping[str, Any], joined: Mapping[str, float]) -> Settings | None:
    event_type = found.get(event_type_id)
    if event_type is None:
        return None
    return Settings(
        event_type,
        _only(found, Host),
        _only(found, Schedule),
        _only(found, Resource),
        _only(found, Location),
        joined,
    )


def _only(found: Mapping[str, Any], kind: type[T]) -> dict[str, T]:
    return {id_: one for id_, one in found.items() if isinstance(one, kind)}


def counted(plan: Plan, frame: Frame) -> Stretch:
    """Within which minutes bookings count against a limit at some start of the frame."""
    # A few days more than the widest period that a limit names, for zones, weeks, and the frame moving on.
    first, last = date_of(frame.base // DAY - 3), date_of(frame.end // DAY + 1)
    pers = {limit.per for limit in plan.event_type.limits}
    if "year" in pers:
        first, last = first.replace(month=1, day=1), last.replace(month=12, day=31)
    elif "month" in pers:
        first, last = first.replace(day=1), last.replace(day=monthrange(last.year, last.month)[1])
    return Stretch((day_of(first) - 9) * DAY, (day_of(last) + 11) * DAY)
