"""The kinds of thing that are created, read, listed, changed and deleted alike: what each is made of and names."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from kalends_availability.domain.holiday import known
from kalends_shared.contracts.availability import (
    BookingPage,
    BookingPageIn,
    EventType,
    EventTypeIn,
    Host,
    HostIn,
    Location,
    LocationIn,
    Resource,
    ResourceIn,
    Schedule,
    ScheduleIn,
)
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.errors import FieldError

Aside = Mapping[str, float]


class Named(NamedTuple):
    """An id in a body: where it stands, and the kind of thing it must name."""

    pointer: str
    kind: str
    id: str


class Kind(Struct, frozen=True, kw_only=True):
    """One kind. `fill` gives what a body leaves out; `check` what is wrong beyond its own fields; `aside` what is not shown."""

    name: str
    prefix: str
    path: str
    made: type[Any]
    shown: type[Any]
    names: Callable[[Any], Iterator[Named]] = lambda _thing: iter(())
    fill: Callable[[Any, Call], None] = lambda _thing, _call: None
    check: Callable[[Any], Iterator[FieldError]] = lambda _thing: iter(())
    aside: Callable[[Any, Aside, datetime], Aside | None] = lambda _thing, _before, _now: None

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")


def _host_names(host: HostIn) -> Iterator[Named]:
    if host.schedule_id is not None:
        yield Named("#/schedule_id", "schedule", host.schedule_id)


def _host_fill(host: HostIn, call: Call) -> None:
    host.timezone = host.timezone or call.timezone


def _schedule_check(schedule: ScheduleIn) -> Iterator[FieldError]:
    if schedule.holidays is not None:
        country, subdivision = known(schedule.holidays.country, schedule.holidays.subdivision)
        if not country:
            yield FieldError("#/holidays/country", "invalid", "is not a country whose holidays are known")
        elif not subdivision:
            yield FieldError("#/holidays/subdivision", "invalid", "is not a subdivision of that country")


def _resource_names(resource: ResourceIn) -> Iterator[Named]:
    if resource.location_id is not None:
        yield Named("#/location_id", "location", resource.location_id)


def _event_type_names(kind: EventTypeIn) -> Iterator[Named]:
    for i, host in enumerate(kind.hosts):
        yield Named(f"#/hosts/{i}/host_id", "host", host.host_id)
    for field in ("schedule_id", "restriction_schedule_id"):
        if (id_ := getattr(kind, field)) is not None:
            yield Named(f"#/{field}", "schedule", id_)
    for i, id_ in enumerate(kind.location_ids):
        yield Named(f"#/location_ids/{i}", "location", id_)
    for i, id_ in enumerate(kind.resource_ids):
        yield Named(f"#/resource_ids/{i}", "resource", id_)


def _event_type_fill(kind: EventTypeIn, _call: Call) -> None:
    if not kind.durations:
        kind.durations = [kind.duration_minutes]


def _joined(kind: EventTypeIn, before: Aside, now: datetime) -> Aside:
    """Since when each host takes part (Unix time); one that leaves and comes back begins anew."""
    return {host.host_id: before.get(host.host_id, now.timestamp()) for host in kind.hosts}


def _page_names(page: BookingPageIn) -> Iterator[Named]:
    for i, id_ in enumerate(page.event_type_ids):
        yield Named(f"#/event_type_ids/{i}", "event_type", id_)


KINDS: Final[tuple[Kind, ...]] = (
    Kind(name="host", prefix="hst", path="/hosts", made=HostIn, shown=Host, names=_host_names, fill=_host_fill),
    Kind(name="schedule", prefix="sch", path="/schedules", made=ScheduleIn, shown=Schedule, check=_schedule_check),
    Kind(name="location", prefix="loc", path="/locations", made=LocationIn, shown=Location),
    Kind(name="resource", prefix="res", path="/resources", made=ResourceIn, shown=Resource, names=_resource_names),
    Kind(
        name="event_type",
        prefix="evt",
        path="/event-types",
        made=EventTypeIn,
        shown=EventType,
        names=_event_type_names,
        fill=_event_type_fill,
        aside=_joined,
    ),
    Kind(
        name="booking_page",
        prefix="pag",
        path="/booking-pages",
        made=BookingPageIn,
        shown=BookingPage,
        names=_page_names,
    ),
)

# What of something live is broken by its going: bookings that are still to come.
BOOKED: Final = frozenset({"host", "resource", "event_type"})
_SLUG: Final = 64


def slug_of(title: str) -> str:
    """A title as a slug; empty where it has no letter or digit of ours."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:_SLUG].strip("-")


def free_slug(wanted: str, taken: set[str]) -> str:
    """The slug, or with the first number behind it that makes it free."""
    if wanted not in taken:
        return wanted
    number = 2
    while (slug := f"{wanted[: _SLUG - len(str(number)) - 1]}-{number}") in taken:
        number += 1
    return slug


def writable(kind: Kind, body: bytes) -> Any:
    """The part of a thing that a body may say, out of its public answer."""
    shown = msgspec.json.decode(body, type=kind.shown)
    return kind.made(**{name: getattr(shown, name) for name in kind.made.__struct_fields__})
