"""What other contexts tell: bookings, which calendars are to show, and hosts, whose calendars they are."""

from collections.abc import Sequence
from typing import Final

import msgspec

from kalends_calendar_sync.domain.booked import is_present, shape_of
from kalends_calendar_sync.store import bookings, cursors, mirrors
from kalends_calendar_sync.store.bookings import Told
from kalends_shared.contracts.booking import BookingState, PersonData
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection

REZONE: Final = """
UPDATE calendars SET host_zone = $3 WHERE tenant_id = $1 AND host_id = $2 AND host_zone <> $3 RETURNING 1
"""


class _Host(msgspec.Struct):
    id: str
    timezone: str | None = None


_state: Final = msgspec.json.Decoder(BookingState)
_person: Final = msgspec.json.Decoder(PersonData)
_host: Final = msgspec.json.Decoder(_Host)


async def apply_booking(conn: Connection, events: Sequence[Envelope]) -> None:
    """Of each booking the latest event counts; between them an erasure empties what its person has left."""
    latest: dict[tuple[str, str], Told] = {}
    for event in events:
        if event.type == "person.erased":
            await _settle(conn, latest)
            latest = {}
            scrubbed = await bookings.scrub(conn, event.tenant_id, event.stream_id)
            if scrubbed:
                await mirrors.refresh(conn, scrubbed)
        elif event.stream_id.startswith("bkg_"):
            told = _told(event)
            latest[told.tenant_id, told.id] = told
    await _settle(conn, latest)


async def _settle(conn: Connection, latest: dict[tuple[str, str], Told]) -> None:
    if not latest:
        return
    changed = await bookings.upsert(conn, list(latest.values()))
    if changed:
        await mirrors.refresh(conn, changed)


def _told(event: Envelope) -> Told:
    state = _state.decode(event.state)
    raw = event.people.get(state.person_version)
    return Told(
        tenant_id=event.tenant_id,
        id=state.id,
        version=event.version,
        present=is_present(state),
        host_ids=state.host_ids,
        person_id=state.person_id,
        shape=shape_of(state, None if raw is None else _person.decode(raw)),
        updated_at=state.updated_at,
    )


async def apply_availability(conn: Connection, events: Sequence[Envelope]) -> None:
    """A host's zone is that of calendars whose server names none; a deleted host's calendars are disconnected."""
    for event in events:
        if event.type in {"host.created", "host.updated"}:
            zone = _host.decode(event.state).timezone
            if zone is not None and await conn.fetchval(REZONE, event.tenant_id, event.stream_id, zone) is not None:
                await conn.execute(cursors.REFRESH, event.tenant_id, event.stream_id)
        elif event.type == "host.deleted":
            await conn.execute(cursors.ORPHAN, event.tenant_id, event.stream_id)
