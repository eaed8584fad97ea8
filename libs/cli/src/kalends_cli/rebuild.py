"""Read models out of the events again, compared with the live ones and put right; services go on meanwhile."""

from functools import partial
from typing import Final

from kalends_cli.installation import schema
from kalends_shared import events_rpc
from kalends_shared.db import Database

COMMAND: Final = "rebuild"


async def booking(url: str, *, write: bool) -> dict[str, int]:
    """How many bookings and holds are not what their events say, which `write` puts right."""
    from kalends_booking.store.rebuild import rebuild

    db = await Database.connect(url, "booking", size=2, name=COMMAND)
    try:
        return {"bookings and holds": len(await rebuild(db, write=write))}
    finally:
        await db.close()


async def availability(url: str, *, write: bool) -> dict[str, int]:
    """How many rows of busy time, by table, are not what the events of bookings and calendars say."""
    from kalends_availability.projections.rebuild import PROJECTIONS, rebuild

    found: dict[str, int] = {}
    for source in PROJECTIONS:
        async with schema(url, events_rpc.OWNERS[source], COMMAND) as owner:
            found |= await rebuild(url, source, partial(events_rpc.read, owner, source), write=write)
    return found
