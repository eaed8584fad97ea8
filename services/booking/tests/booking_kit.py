"""What tests of booking share with those of the whole: whether places are what the events say."""

from typing import Any, Final

from kalends_booking.domain.decision import State
from kalends_booking.store.rebuild import pages, replay
from kalends_shared.contracts.booking import BookingState
from kalends_shared.db import Database

# Places of a booking or hold that have, or lack, a reservation; pruned ones are none's business any more.
PLACES: Final = """
SELECT s.subject_id, s.slot, s.start_at, s.end_at, s.seats, s.in_force, s.status, EXISTS (
    SELECT FROM reservations r WHERE r.tenant_id = s.tenant_id AND r.subject_id = s.subject_id AND r.slot = s.slot
        AND r.start_at = s.start_at AND r.end_at = s.end_at AND r.during && tstzrange(s.start_at, s.end_at)
) OR s.end_at < now() AS reserved
FROM seats s WHERE s.tenant_id = $1 AND s.holder_id = $2 ORDER BY s.subject_id
"""
ORPHANS: Final = """
SELECT r.subject_id FROM reservations r WHERE NOT EXISTS (
    SELECT FROM seats s WHERE s.tenant_id = r.tenant_id AND s.subject_id = r.subject_id AND s.start_at = r.start_at
        AND s.end_at = r.end_at AND s.slot = r.slot AND s.in_force)
"""


async def misplaced(db: Database) -> list[str]:
    """Bookings and holds whose places are not those that their events say, and subjects reserved for nobody; none, ever."""
    wrong: list[str] = [row["subject_id"] for row in await db.pool.fetch(ORPHANS)]
    async for keys in pages(db):
        for (tenant, stream_id), state in (await replay(db.pool, keys)).items():
            rows = await db.pool.fetch(PLACES, tenant, stream_id)
            held = [row for row in rows if row["in_force"]]
            found = [(row["subject_id"], row["start_at"], row["end_at"], row["seats"]) for row in held]
            status = state.status if isinstance(state, BookingState) else None
            told = all(row["status"] == status for row in rows)
            if found != _places(state) or not told or not all(row["reserved"] for row in held):
                wrong.append(stream_id)
    return wrong


def _places(state: State) -> list[tuple[Any, ...]]:
    """The places that a booking or hold has; one that has lapsed may have lost them already, or not yet."""
    if state.status in {"declined", "cancelled", "converted", "released", "expired"}:
        return []
    return sorted((subject, state.start_at, state.end_at, state.seats) for subject in (*state.host_ids, *state.units))
