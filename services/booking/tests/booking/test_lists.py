"""Lists: filters, pages, order, and that none of them walks the whole table."""

import contextlib
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import asyncpg
import msgspec
import pytest

from kalends_booking.store import booking_lists, people
from kalends_shared import lists
from kalends_shared.contracts.booking import BookingsQuery
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database

from .world import HALF_HOUR, NOON, NOW, TENANT, AlwaysOpen, Client, call, event_type, refusal


@pytest.fixture
async def seven(client: Client, quotes: AlwaysOpen) -> list[str]:
    """Bookings at half hours from noon on, of two bookers in turn, the last one cancelled; one of another event type."""
    quotes.event_types["evt_other"] = event_type("hst_bob", id="evt_other")
    ids = [(await client.book(NOON + HALF_HOUR * n, booker_email=f"b+{n % 2}@x.test")).body["id"] for n in range(7)]
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
    ("booker_email=B%2B1@x.test", [1, 3, 5]),
    ("booker_email=b+1@x.test", [1, 3, 5]),
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


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("cancel", {}, "cancelled"),
        ("patch", {"metadata": {"k": 1}}, "confirmed"),
        ("reschedule", {"start_at": NOON + 6 * HALF_HOUR}, "confirmed"),
        ("reassign", {"host_id": "hst_bob"}, "confirmed"),
    ],
)
async def test_what_was_asked_before_the_last_change_is_told_as_of_that_one(
    client: Client, quotes: AlwaysOpen, action: str, body: dict[str, Any], status: str
) -> None:
    """A command waits, or a clock moves while it is under way: then it comes after what was asked later."""
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", assignment="any")
    made = (await client.book(host_id="hst_ann")).body
    client.now = NOW + timedelta(minutes=10)
    await client.act(made["id"], "reschedule", {"start_at": NOON + 2 * HALF_HOUR})
    client.now = NOW + timedelta(minutes=5)
    done = (await client.act(made["id"], action, body)).body
    assert done["updated_at"] == "2026-04-01T09:10:00Z"

    async def listed(minute: int, asked: str) -> list[str]:
        rows = (await client.list(f"as_of=2026-04-01T09:{minute:02}:00Z&status={asked}"))["data"]
        return [row["start_at"][11:16] for row in rows]

    assert await listed(7, "confirmed") == ["12:00"]
    assert await listed(10, status) == [done["start_at"][11:16]]
    assert await listed(7, "cancelled") == []


async def test_as_of_lists_are_what_each_booking_was(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    """Every filter at many moments, against the bookings as each is told for that moment."""
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", assignment="any", requires_confirmation=True)
    quotes.event_types["evt_other"] = event_type("hst_ann", id="evt_other")
    ids, hours = [], itertools.count(1)
    for n in range(8):
        client.now = NOW + timedelta(hours=next(hours))
        kind = "evt_other" if n % 3 == 0 else "evt_visit"
        made = await client.book(NOON + timedelta(hours=9 * n), event_type_id=kind, booker_email=f"b{n % 2}@x.test")
        ids.append(made.body["id"])

    async def act(n: int, action: str, body: Any = None) -> None:
        client.now = NOW + timedelta(hours=next(hours))
        await client.act(ids[n], action, body)

    for n in (1, 2, 4):
        await act(n, "approve")
    await act(0, "cancel")
    await act(5, "decline")
    await act(1, "reschedule", {"start_at": NOON - timedelta(days=2)})
    host = (await client.get(ids[2]))["host_ids"][0]
    await act(2, "reassign", {"host_id": "hst_bob" if host == "hst_ann" else "hst_ann"})
    await act(4, "reschedule", {"start_at": NOON + timedelta(days=4)})
    client.now = NOON + timedelta(days=2)
    await client.ask("advance_clock", {"now": client.now}, mode="test")
    await client.act(ids[3], "no_show")
    moments = [NOW + timedelta(hours=hour, minutes=30) for hour in range(0, 18, 2)]
    moments += [NOON + timedelta(hours=hour, minutes=10) for hour in (-50, -47, 0, 1, 20, 40, 48)]
    for at, order in itertools.product(moments, ("asc", "desc")):
        stamp = at.strftime("as_of=%Y-%m-%dT%H:%M:%SZ")
        was = []
        for one in ids:
            with contextlib.suppress(KalendsError):
                was.append((await client.ask("get_booking", method="GET", params={"id": one}, query=stamp)).body)
        was.sort(key=lambda one: (one["start_at"], one["id"]), reverse=order == "desc")
        now = at.isoformat().replace("+00:00", "Z")
        for name, fits in THEN.items():
            found: list[str] = []
            cursor = ""
            while True:
                page = await client.list(f"{stamp}&order={order}&limit=3&{name}{cursor}")
                found += [row["id"] for row in page["data"]]
                if not page["has_more"]:
                    break
                cursor = f"&cursor={quote(page['next_cursor'])}"
            expected = [one["id"] for one in was if fits(one, now)]
            assert found == expected, (stamp, order, name)
            assert (await client.list(f"{stamp}&page=1&per_page=3&{name}"))["total"] == len(expected)


def upcoming(one: Any, now: str) -> bool:
    return one["end_at"] > now and one["status"] in {"pending", "confirmed"}


THEN: dict[str, Callable[[Any, str], bool]] = {
    "": lambda *_: True,
    "upcoming=true": upcoming,
    "upcoming=false": lambda one, now: not upcoming(one, now),
    "upcoming=false&status=confirmed,cancelled": lambda one, now: (
        not upcoming(one, now) and one["status"] in {"confirmed", "cancelled"}
    ),
    "status=confirmed": lambda one, _: one["status"] == "confirmed",
    "status=pending,no_show,completed": lambda one, _: one["status"] in {"pending", "no_show", "completed"},
    "start_after=2026-04-10T20:00:00Z": lambda one, _: one["start_at"] >= "2026-04-10T20:00:00Z",
    "start_before=2026-04-10T20:00:00Z": lambda one, _: one["start_at"] < "2026-04-10T20:00:00Z",
    "host_id=hst_ann": lambda one, _: "hst_ann" in one["host_ids"],
    "host_id=hst_bob&upcoming=true": lambda one, now: "hst_bob" in one["host_ids"] and upcoming(one, now),
    "event_type_id=evt_other&status=cancelled": lambda one, _: (
        one["event_type_id"] == "evt_other" and one["status"] == "cancelled"
    ),
    "booker_email=b1@x.test": lambda one, _: one["booker_email"] == "b1@x.test",
    "booker_email=b1@x.test&host_id=hst_bob": lambda one, _: (
        one["booker_email"] == "b1@x.test" and "hst_bob" in one["host_ids"]
    ),
}


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
INSERT INTO seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats, status)
SELECT tenant_id, id, 'hst_' || right(id, 2), event_type_id, start_at, end_at, 1, status FROM bookings
WHERE tenant_id = $1
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
    "host_id=hst_7&series_id=ser_50",
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


@pytest.mark.parametrize("newer", [False, True])
async def test_every_list_reads_a_few_pages_of_rows_and_never_the_table(
    db: Database, owner: "asyncpg.Connection[Any]", newer: bool
) -> None:
    """`newer`: of a tenant that the planner's statistics do not know yet."""
    rows, per_page = 30_000, 25
    tenants = ("acc_big-live", TENANT) if newer else (TENANT,)
    for tenant in tenants:
        await owner.execute(FILL, tenant, NOW - timedelta(minutes=rows // 2), NOW, rows)
        await owner.execute(FILL_SEATS, tenant)
        await owner.execute(FILL_PEOPLE, tenant, NOW, rows)
        await owner.execute(PERSON_OF_ALL, tenant, people.email_hash("ada@example.test"), NOW)
        if tenant == tenants[0]:
            for table in ("bookings", "seats", "people", "person_ids"):
                await owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
                await owner.execute(f"VACUUM ANALYZE {table}")
    middle = lists.make_cursor(booking_lists.Key(NOW + timedelta(minutes=10), "bkg_"))
    too_many = {}
    async with db.pool.acquire() as conn:
        for filters in (*LISTS, *(f"{one}&cursor={quote(middle)}" for one in LISTS), "page=3&per_page=25"):
            asked = query(filters, BookingsQuery)
            if not booking_lists.statuses(asked):
                continue
            sql, args = booking_lists.select(call(), asked, lists.window(asked, booking_lists.Key))
            await conn.execute(f"PREPARE list AS {sql}")
            told = await conn.fetchval(
                f"EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF, FORMAT JSON) EXECUTE list ({', '.join(map(literal, args))})"
            )
            await conn.execute("DEALLOCATE list")
            plan = msgspec.json.decode(told)[0]["Plan"]
            if read(plan) > 5 * per_page * len(booking_lists.statuses(asked)):
                too_many[filters] = read(plan)
    assert not too_many


# What was booked on each of 200 days was booked a month before, for all hours of the day; half of it is over by NOW.
FILL_EVENTS = """
INSERT INTO events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor, data, state)
SELECT $1, 'bkg_' || lpad(n::text, 26, '0'), v, 1, 'e' || n || '/' || v, (ARRAY['booking.created', 'meeting.started', 'booking.completed'])[v], 1,
    CASE v WHEN 1 THEN at - interval '30 days' WHEN 2 THEN at ELSE at + interval '30 minutes' END, '{}', '{}',
    json_build_object('id', 'bkg_' || lpad(n::text, 26, '0'), 'start_at', to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'end_at', to_char(at + interval '30 minutes', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'status', CASE WHEN n % 100 = 0 AND v = 3 THEN 'no_show' WHEN n % 9 = 0 AND v < 3 THEN 'pending' WHEN v = 3 THEN 'completed' ELSE 'confirmed' END,
        'person_id', 'per_' || n % 5000, 'person_version', 'v' || n, 'host_ids', json_build_array('hst_' || n % 100))
FROM (SELECT n, $2::timestamptz + n * interval '10 minutes' AS at FROM generate_series(1, $4) n) t, generate_series(1, 3) v
WHERE v = 1 OR at + interval '30 minutes' < $3
"""
DAYS_ROWS = 144
AS_OF = [
    "&".join(filter(None, (f"as_of={at}", *parts)))
    for at in ("2026-04-01T09:00:00Z", "2026-01-15T00:00:00Z", "2026-05-20T00:00:00Z")
    for parts in itertools.product(STATUSES, UPCOMING, ORDERS)
]


RELATIONS = """
SELECT 'booking.events'::regclass::oid UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'booking.events'::regclass
"""


class Counts:
    """How many rows were read of a table and its indexes, by Postgres's own statistics of the session's transaction."""

    SQL = """
    SELECT sum(pg_stat_get_xact_tuples_returned(c) + pg_stat_get_xact_tuples_fetched(c))::bigint
    FROM unnest($1::oid[]) c
    """

    def __init__(self, conn: Any, relations: list[int]) -> None:
        self._conn, self._relations = conn, relations

    async def read(self) -> int:
        return int(await self._conn.fetchval(self.SQL, self._relations))


async def test_a_list_as_of_a_moment_reads_the_days_that_it_needs_and_never_all_that_was(
    db: Database, owner: "asyncpg.Connection[Any]"
) -> None:
    rows = 28_800
    begin = NOW - timedelta(days=100)
    await owner.execute(FILL_EVENTS, TENANT, begin, NOW, rows)
    await owner.execute("ALTER TABLE events SET (autovacuum_enabled = false)")
    await owner.execute("VACUUM ANALYZE events")
    relations = [row[0] for row in await owner.fetch(RELATIONS)]
    too_many, empty = {}, []
    for filters in AS_OF:
        asked = query(filters, BookingsQuery)
        if not booking_lists.statuses(asked):
            continue
        async with db.transaction() as conn:
            counts = Counts(conn, relations)
            before = await counts.read()
            sql, args = booking_lists.select(call(), asked, lists.window(asked, booking_lists.Key))
            found = [msgspec.json.decode(row["state"]) for row in await conn.fetch(sql, *args)]
            most = await counts.read() - before
        keys = [(one["start_at"], one["id"]) for one in found]
        assert keys == sorted(keys, reverse=asked.order == "desc"), filters
        if not found:
            empty.append(filters)
        # Of each day that a page needs every event and whether one came after it, by index and row; a look a day passed.
        if most > 16 * DAYS_ROWS + 3 * 200:
            too_many[filters] = most
    assert not too_many
    assert len(empty) < len(AS_OF) // 2
