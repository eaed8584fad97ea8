"""Busy time out of the events again, and the tables put right where they are not what the events say."""

from collections.abc import Callable
from typing import Final, NamedTuple

import asyncpg

from kalends_availability.projections import bookings, calendars
from kalends_availability.projections.bookings import Key, touch
from kalends_availability.projections.followed import Effects
from kalends_availability.schema import SCHEMA
from kalends_shared.projection import EventsAfter
from kalends_shared.rebuild import rebuilt


class _Projection(NamedTuple):
    """What it does with its source's events, the tables that it alone writes, and what caches call a row of them by."""

    apply: Effects
    tables: tuple[str, ...]
    keys_of: Callable[[asyncpg.Record], set[Key]]


PROJECTIONS: Final = {
    "booking": _Projection(bookings.apply, ("busy",), bookings.keys_of),
    "calendar": _Projection(calendars.apply, ("calendar_busy", "calendars"), calendars.keys_of),
}


async def rebuild(url: str, source: str, events_after: EventsAfter, *, write: bool) -> dict[str, int]:
    """How many rows of each table differ, which `write` puts right; caches hear of it within a second.

    Raises:
        Exception: as `kalends_shared.rebuild.rebuilt`.
    """
    projection = PROJECTIONS[source]
    found = dict.fromkeys(projection.tables, 0)
    async with rebuilt(url, SCHEMA.name, source, projection.tables, projection.apply, events_after) as again:
        for table in projection.tables:
            changed: set[Key] = set()
            async for row in again.different(table):
                found[table] += 1
                changed |= projection.keys_of(row)
            if write and changed:
                await again.put_right(table)
                await touch(again.conn, changed)
    return found
