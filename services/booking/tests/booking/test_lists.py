"""Lists: filters, pages, order, and that none of them walks the whole table."""

import itertools
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import asyncpg
import msgspec
import pytest

from kalends_booking.store import bookings, people
from kalends_shared import lists
from kalends_shared.contracts.booking import BookingsQuery
from kalends_shared.contracts.decode import query
from kalends_shared.db import Database

from .world import HALF_HOUR, NOON, NOW, TENANT, AlwaysOpen, Client, call, event_type, refusal


@pytest.fixture
async def seven(client: Client, quotes: AlwaysOpen) -> list[str]:
    """Bookings at half hours from noon on, of two bookers in turn, the last one cancelled; one of another event type."""
    quotes.event_types["evt_other"] = event_type("hst_bob", id="evt_other")
    ids = [(await client.book(NOON + HALF_HOUR * n, booker_email=f"b{n % 2}@x.test")).body["id"] for n in range(7)]
    await client.act(ids[6], "cancel")
    await client.book(NOON, event_type_id="evt_other", booker_email="c@x.test")
    return ids


FILTERED: list[tuple[str, list[int]]] = [
    ("", [0, 1, 2, 3, 4, 5, 6]),
    ("status=cancelled", [6]),
    ("status=confirmed", [0, 1, 2, 3, 4, 5]),
    ("status=confirmed,cancelled", [0, 1, 2, 3, 4, 5, 6]),
    ("status=cancelled,confirmed&order=desc", [6, 5, 4, 3, 2, 1, 0]),
    ("status=pending", []),
    ("booker_email=B1@x.test", [1, 3, 5]),
    ("booker_email=nobody@x.test", []),
    ("start_after=2026-04-10T14:00:00Z", [4, 5, 6]),
    ("start_before=2026-04-10T13:00:00Z", [0, 1]),
    ("start_after=2026-04-10T16:00:00 02:00", [4, 5, 6]),
    ("upcoming=true", [0, 1, 2, 3, 4, 5]),
    ("upcoming=false", [6]),
    ("order=desc&start_before=2026-04-10T13:00:00Z", [1, 0]),
    ("event_type_id=evt_none", []),
]


async def test_filters(client: Client, seven: list[str]) -> None:
    for filters, rows in FILTERED:
        for narrowed in ("event_type_id=evt_visit", "host_id=hst_ann"):
            found = await client.list(f"{narrowed}&{filters}" if "event_type_id" not in filters else filters)
            assert [seven.index(row["id"]) for row in found["data"]] == rows, filters


async def test_what_runs_is_upcoming_until_its_end(client: Client, seven: list[str]) -> None:
    client.now = NOON + HALF_HOUR - timedelta(seconds=1)
    assert len((await client.list("upcoming=true&host_id=hst_ann"))["data"]) == 6
    client.now = NOON + HALF_HOUR
    assert len((await client.list("upcoming=true&host_id=hst_ann"))["data"]) == 5
    assert [row["id"] for row in (await client.list("upcoming=false&host_id=hst_ann"))["data"]] == [seven[0], seven[6]]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("filters", ["", "host_id=hst_ann", "status=confirmed,cancelled"])
async def test_pages_by_cursor_give_each_row_once(client: Client, seven: list[str], filters: str, order: str) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        page = await client.list(f"event_type_id=evt_visit&limit=2&order={order}&{filters}{cursor}")
        seen += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        await client.book(NOON - HALF_HOUR * (len(seen) + 1))
        cursor = f"&cursor={quote(page['next_cursor'])}"
    assert page["next_cursor"] is None
    assert [one for one in seen if one in seven] == (seven if order == "asc" else seven[::-1])
    assert len(seen) == len(set(seen))


async def test_pages_by_number(client: Client, seven: list[str]) -> None:
    page = await client.list("event_type_id=evt_visit&page=3&per_page=3")
    assert [row["id"] for row in page.pop("data")] == seven[6:]
    assert page == {"has_more": False, "next_cursor": None, "page": 3, "per_page": 3, "total": 7}
    two = await client.list("host_id=hst_ann&status=confirmed,cancelled&page=2&per_page=3&order=desc")
    assert ([row["id"] for row in two["data"]], two["total"]) == ([seven[3], seven[2], seven[1]], 7)


async def test_a_bad_parameter_is_pointed_at(client: Client) -> None:
    for bad in ("cursor=zzzz", "limit=0", "status=eaten", "upcoming=maybe", "order=up", "as_of=soon", "x=1"):
        refused = await refusal(client.list(bad))
        assert (refused.status, refused.fields[0].pointer) == (422, f"?{bad.partition('=')[0]}")


async def test_a_minimum_position_is_reached_by_every_read(client: Client) -> None:
    reply = await client.book()
    found = await client.ask("list_bookings", method="GET", min_position=reply.position)
    assert len(found.body["data"]) == 1
    assert (await refusal(client.ask("list_bookings", method="GET", min_position="%%%"))).code == "malformed"


async def test_as_of_shows_what_was(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob")
    made = (await client.book()).body
    client.now = NOW + timedelta(hours=1)
    await client.act(made["id"], "reschedule", {"start_at": NOON + 4 * HALF_HOUR})
    client.now = NOW + timedelta(hours=2)
    other = "hst_bob" if made["host_ids"] == ["hst_ann"] else "hst_ann"
    await client.act(made["id"], "reassign", {"host_id": other})
    client.now = NOW + timedelta(hours=3)
    await client.act(made["id"], "cancel")

    async def ids(query: str) -> list[str]:
        return [row["start_at"][11:16] + " " + row["status"] for row in (await client.list(query))["data"]]

    async def one(at: str) -> Any:
        return (await client.ask("get_booking", method="GET", params={"id": made["id"]}, query=f"as_of={at}")).body

    assert await one("2026-04-01T09:30:00Z") == made
    assert (await one("2026-04-01T10:00:00Z"))["start_at"] == "2026-04-10T14:00:00Z"
    assert (await refusal(one("2026-04-01T08:59:00Z"))).code == "not_found"
    assert await ids("as_of=2026-04-01T08:59:00Z") == []
    assert await ids("as_of=2026-04-01T09:30:00Z") == ["12:00 confirmed"]
    assert await ids("as_of=2026-04-01T10:30:00Z&status=confirmed&event_type_id=evt_visit") == ["14:00 confirmed"]
    assert await ids("as_of=2026-04-01T10:30:00Z&start_before=2026-04-10T13:00:00Z") == []
    assert await ids(f"as_of=2026-04-01T10:30:00Z&host_id={made['host_ids'][0]}&upcoming=true") == ["14:00 confirmed"]
    assert await ids(f"as_of=2026-04-01T11:30:00Z&host_id={made['host_ids'][0]}") == []
    assert await ids(f"as_of=2026-04-01T11:30:00Z&host_id={other}&booker_email=ada@example.test") == ["14:00 confirmed"]
    assert await ids("as_of=2026-04-11T00:00:00Z&page=1&per_page=5") == ["14:00 cancelled"]


# What is over is over by its status, but for a few that are still running; nothing that is to come was cancelled.
FILL = """
INSERT INTO bookings (tenant_id, id, event_type_id, start_at, end_at, status, series_id, person_id, person_version, version, state)
SELECT $1, 'bkg_' || lpad(n::text, 26, '0'), 'evt_' || n % 500, at, at + interval '30 minutes',
    CASE WHEN at + interval '30 minutes' > $3 THEN (ARRAY['confirmed', 'confirmed', 'pending'])[1 + n % 3]
        ELSE (ARRAY['completed', 'completed', 'completed', 'no_show', 'declined', 'cancelled'])[1 + n % 6] END,
    CASE WHEN n % 50 = 0 THEN 'ser_' || n % 1000 END, 'per_' || n % 5000, 'v' || n, 1, '{}'
FROM (SELECT n, $2::timestamptz + n * interval '1 minute' AS at FROM generate_series(1, $4) n) t
"""
FILL_SEATS = """
INSERT INTO seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats)
SELECT tenant_id, id, 'hst_' || right(id, 2), event_type_id, start_at, end_at, 1 FROM bookings
"""
FILL_PEOPLE = """
INSERT INTO people (tenant_id, person_id, version, created_at, name, email, guests, answers)
SELECT $1, 'per_' || n % 5000, 'v' || n, $2, 'Ada', 'ada@example.test', '[]', '{}' FROM generate_series(1, $3) n
"""
PERSON_OF_ALL = """
INSERT INTO person_ids (tenant_id, email_hash, person_id, created_at) VALUES ($1, $2, 'per_7', $3)
"""
NARROWED = (
    "",
    "event_type_id=evt_7",
    "host_id=hst_42",
    "booker_email=ada@example.test",
    "series_id=ser_50",
    "start_after=2026-03-28T00:00:00Z&start_before=2026-04-05T00:00:00Z",
)
STATUSES = ("", "status=cancelled", "status=confirmed,pending", "status=pending,no_show,completed")
UPCOMING = ("", "upcoming=true", "upcoming=false")
ORDERS = ("order=asc", "order=desc")
LISTS = ["&".join(filter(None, parts)) for parts in itertools.product(NARROWED, STATUSES, UPCOMING, ORDERS)]


def literal(value: Any) -> str:
    if isinstance(value, bytes):
        return rf"'\x{value.hex()}'"
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def read(node: dict[str, Any]) -> int:
    """How many rows of tables or indexes a plan's nodes have read, those that its filters threw away included."""
    here = 0
    if "Relation Name" in node or "Index Name" in node:
        dropped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        here = (node["Actual Rows"] + dropped) * node["Actual Loops"]
    return here + sum(read(child) for child in node.get("Plans", []))


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_every_list_reads_a_few_pages_of_rows_and_never_the_table(db: Database, mode: str) -> None:
    """Whether the plan knows the arguments, or is one that a session has kept: both ways it is the walk that was meant."""
    rows, per_page = 30_000, 25
    await db.pool.execute(FILL, TENANT, NOW - timedelta(minutes=rows // 2), NOW, rows)
    await db.pool.execute(FILL_SEATS)
    await db.pool.execute(FILL_PEOPLE, TENANT, NOW, rows)
    await db.pool.execute(PERSON_OF_ALL, TENANT, people.email_hash("ada@example.test"), NOW)
    owner = await asyncpg.connect(db.url)
    await owner.execute("VACUUM ANALYZE booking.bookings")
    await owner.execute("VACUUM ANALYZE booking.seats")
    await owner.execute("VACUUM ANALYZE booking.people")
    await owner.close()
    middle = lists.make_cursor(bookings.Key(NOW + timedelta(minutes=10), "bkg_"))
    too_many = {}
    async with db.pool.acquire() as conn:
        await conn.execute(f"SET plan_cache_mode = {mode}")
        for filters in (*LISTS, *(f"{one}&cursor={quote(middle)}" for one in LISTS), "page=3&per_page=25"):
            asked = query(filters, BookingsQuery)
            if not bookings._statuses(asked):
                continue
            sql, args = bookings._select(call(), asked, lists.window(asked, bookings.Key))
            await conn.execute(f"PREPARE list AS {sql}")
            told = await conn.fetchval(
                f"EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF, FORMAT JSON) EXECUTE list ({', '.join(map(literal, args))})"
            )
            await conn.execute("DEALLOCATE list")
            plan = msgspec.json.decode(told)[0]["Plan"]
            # A host's places are not sorted by status: a list of one may read them all, and look each booking up.
            most = 2 * rows // 100 + 5 * per_page if asked.host_id else 5 * per_page * len(bookings._statuses(asked))
            if read(plan) > most:
                too_many[filters] = read(plan)
        await conn.execute("RESET plan_cache_mode")
    assert not too_many
