"""Tenants never meet: whatever is another's, or of the other mode, is not there."""

from typing import Any

import pytest

from kalends_booking.rpc import METHODS
from kalends_shared.db import Database

from .test_holds import hold
from .world import HALF_HOUR, NOON, TENANT, AlwaysOpen, Client, event_type, refusal

OTHERS = ("acc_one-test", "acc_two-live")
BODIES: dict[str, Any] = {
    "reschedule_booking": {"start_at": NOON + HALF_HOUR},
    "reassign_booking": {"host_id": "hst_bob"},
    "payment_booking": {"status": "paid"},
    "recordings_booking": {"url": "https://x.test/r"},
    "patch_booking": {"metadata": {"a": 1}},
}
# Which of them act on a thing, by whose id.
OF_A_HOLD = {"get_hold", "release_hold"}
OF_A_PERSON = {"get_person", "erase_person"}
LISTS = {"list_bookings", "list_holds", "list_people"}
OF_NOTHING = {"create_booking", "create_hold", "advance_clock"}
OF_A_BOOKING = METHODS.keys() - OF_A_HOLD - OF_A_PERSON - LISTS - OF_NOTHING


@pytest.fixture
async def mine(client: Client, quotes: AlwaysOpen) -> dict[str, Any]:
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", "hst_cid", requires_confirmation=True)
    booked = (await client.book(key="k", recurrence={"rrule": "FREQ=DAILY;COUNT=2"})).body
    held = (await hold(client, NOON)).body
    return {"booking": booked["id"], "hold": held["id"], "person": booked["person_id"], "made": booked}


async def everything(db: Database) -> list[str]:
    """All that is written of the tenant."""
    rows = []
    for table in ("bookings", "holds", "seats", "reservations", "people", "person_ids", "events", "streams"):
        found = await db.pool.fetch(f"SELECT t::text FROM {table} t WHERE tenant_id = $1 ORDER BY 1", TENANT)
        rows += [row[0] for row in found]
    return rows


@pytest.mark.parametrize("tenant", OTHERS)
async def test_another_ones_thing_is_not_found(client: Client, db: Database, mine: dict[str, Any], tenant: str) -> None:
    before = await everything(db)
    for name in sorted(OF_A_BOOKING | OF_A_HOLD | OF_A_PERSON):
        thing = "hold" if name in OF_A_HOLD else "person" if name in OF_A_PERSON else "booking"
        asked = Client(client.ctx, tenant).ask(name, BODIES.get(name, {}), params={"id": mine[thing]}, method="POST")
        assert (await refusal(asked)).code == "not_found", name
    assert await everything(db) == before


@pytest.mark.parametrize("tenant", OTHERS)
async def test_lists_and_ids_in_bodies(client: Client, mine: dict[str, Any], tenant: str) -> None:
    other = Client(client.ctx, tenant)
    booked = mine["made"]
    for query in (
        "",
        f"series_id={booked['series_id']}",
        f"host_id={booked['host_ids'][0]}",
        "event_type_id=evt_visit",
        "booker_email=ada@example.test",
        "upcoming=true",
        "status=pending",
        "as_of=2027-01-01T00:00:00Z",
        "page=1&per_page=10",
    ):
        assert (await other.list(query))["data"] == [], query
    for name in ("list_holds", "list_people"):
        page = (await other.ask(name, method="GET", query="page=1&per_page=10")).body
        assert (page["data"], page["total"]) == ([], 0)
    refused = await refusal(other.book(hold_id=mine["hold"]))
    assert [(field.pointer, field.code) for field in refused.fields] == [("#/hold_id", "not_found")]


@pytest.mark.parametrize("tenant", OTHERS)
async def test_keys_hosts_and_people_are_their_own(
    client: Client, db: Database, mine: dict[str, Any], quotes: AlwaysOpen, tenant: str
) -> None:
    """The same Idempotency-Key, the same host's time and the same address mean nothing elsewhere."""
    before = await everything(db)
    other = Client(client.ctx, tenant)
    made = await other.book(key="k", recurrence={"rrule": "FREQ=DAILY;COUNT=2"})
    assert made.headers == {}
    assert made.body["person_id"] != mine["person"]
    assert made.body["host_ids"] == mine["made"]["host_ids"]
    await other.ask("erase_person", method="DELETE", params={"id": made.body["person_id"]})
    await other.act(made.body["id"], "cancel", {"scope": "all"})
    assert await everything(db) == before
    assert (await client.get(mine["booking"]))["booker_name"] == "Ada Lovelace"
