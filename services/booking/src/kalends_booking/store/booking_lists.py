"""Lists of bookings, by (start_at, id): of the present, and as of a moment.

A list of the present is one indexed walk for each status, merged in order, so that it never reads more than its pages.
What is over has another status within moments, so that what is upcoming, or is not, is found without walking past the
other. A host's is walked over the host's places, which know their booking's status; the bookings are then looked up.

As of a moment, what an event type, host, series or booker has had is looked at whole, each booking as it was then; all
that a tenant has is walked day by day (migrations, `bookings_as_of`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, get_args

from msgspec import Struct

from kalends_booking.domain.booking import OPEN
from kalends_booking.store import people
from kalends_booking.store.bookings import JOIN, PERSON, Loaded, loaded
from kalends_shared.contracts.booking import BookingsQuery, Status
from kalends_shared.contracts.call import Call
from kalends_shared.db import Queryable
from kalends_shared.lists import Window

# The longest booking: what ends in the future began after so long ago.
_LONGEST: Final = timedelta(days=1)

_WALK: Final = "(SELECT {columns} FROM {tables} WHERE {where} ORDER BY {order} LIMIT {take})"
_MERGED: Final = """
SELECT b.* FROM ({walks}) b ORDER BY b.start_at {direction}, b.id {direction} LIMIT {take} OFFSET {skip}
"""
_PAGE: Final = f"""
SELECT b.state, {PERSON} FROM ({{found}}) b {JOIN} ORDER BY b.start_at {{direction}}, b.id {{direction}}
"""  # noqa: S608
_WHOLE: Final = "b.tenant_id, b.id, b.start_at, b.person_id, b.person_version, b.state"
_LOOKED_UP: Final = f"""
SELECT {_WHOLE} FROM ({{keys}}) k JOIN bookings b ON b.tenant_id = k.tenant_id AND b.id = k.id
"""  # noqa: S608
_COUNT: Final = "SELECT count(*) FROM ({walks}) b"

# A booking as it was at a moment: by its last event until then.
_THEN: Final = """
CROSS JOIN LATERAL (
    SELECT e.state FROM events e
    WHERE e.tenant_id = k.tenant_id AND e.stream_id = k.id AND e.occurred_at <= {as_of} ORDER BY e.version DESC LIMIT 1
) e"""
_LOOKED_UP_THEN: Final = """
SELECT k.tenant_id, k.id, k.start_at, e.state, e.state->>'person_id' AS person_id,
    e.state->>'person_version' AS person_version
FROM ({keys}) k {then}"""
_ALL_THEN: Final = """
(SELECT k.tenant_id, k.id, k.event_type_id, k.series_id, k.person_id, (e.state->>'start_at')::timestamptz AS start_at,
    (e.state->>'end_at')::timestamptz AS end_at, e.state->>'status' AS status, e.state->'host_ids' AS host_ids
FROM {candidates} {then}) b"""
# The bookings that a host has, or has lost to another.
_EVER_OF_HOST: Final = """
(SELECT s.holder_id AS id FROM seats s
    WHERE s.tenant_id = {tenant} AND s.subject_id = {host} AND starts_with(s.holder_id, 'bkg_')
UNION SELECT e.stream_id FROM events e
    WHERE e.tenant_id = {tenant} AND e.type IN ('booking.rescheduled', 'booking.reassigned')
        AND former_hosts(e.data) @> ARRAY[{host}]) h
JOIN bookings k ON k.tenant_id = {tenant} AND k.id = h.id"""
# A series or a booker has few bookings: each is asked whether it is the host's.
_HAS_PLACE: Final = """
(SELECT true FROM seats s WHERE s.tenant_id = {tenant} AND s.holder_id = b.id AND s.subject_id = {host})
"""
# What is open although it ended long ago: its timer is late. (What a timer tells has the time of which it tells.)
_LATE: Final = """
(SELECT b.tenant_id, b.id, b.event_type_id, b.series_id, b.person_id FROM bookings b
WHERE b.tenant_id = {tenant} AND b.status IN ('pending', 'confirmed') AND b.start_at < {recent}) k"""
_BY_DAY: Final = """
SELECT {tenant}::text AS tenant_id, d.id, d.start_at
FROM bookings_as_of({tenant}, {as_of}, {statuses}, {since}, {until}, {upcoming}, {descending}, {start}, {id}, {take}) d
"""


class Key(Struct, frozen=True):
    """What lists are sorted by."""

    start_at: datetime
    id: str


class _Source(NamedTuple):
    """What is walked, and how it names what lists ask of a booking."""

    tables: str
    id: str = "b.id"
    start: str = "b.start_at"
    end: str = "b.end_at"
    status: str = "b.status"
    event_type: str = "b.event_type_id"
    tenant: str = "b.tenant_id"


_BOOKINGS: Final = _Source("bookings b")
_PLACES: Final = _Source("seats s", "s.holder_id", "s.start_at", "s.end_at", "s.status", "s.slot", "s.tenant_id")


async def page(conn: Queryable, call: Call, query: BookingsQuery, window: Window[Key]) -> list[Loaded]:
    """The rows of a page and one more, by (start_at, id)."""
    if not statuses(query):
        return []
    sql, args = select(call, query, window)
    return [loaded(row) for row in await conn.fetch(sql, *args)]


async def count(conn: Queryable, call: Call, query: BookingsQuery) -> int:
    if not statuses(query):
        return 0
    asked = _List(call, query)
    return int(await conn.fetchval(_COUNT.format(walks=" UNION ALL ".join(asked.walks())), *asked.args))


def statuses(query: BookingsQuery) -> Sequence[Status | None]:
    """Each status that has a walk of its own; None: one walk over all. Nothing, where no status fits what is asked."""
    asked = sorted(set(query.status)) if query.status else None
    if query.upcoming is None:
        return asked or [None]
    return [status for status in asked or get_args(Status) if status in OPEN or not query.upcoming]


def select(call: Call, query: BookingsQuery, window: Window[Key]) -> tuple[str, list[Any]]:
    """The query of a page that has a status to look for, and its arguments."""
    asked = _List(call, query)
    direction = "DESC" if query.order == "desc" else "ASC"
    walks = asked.walks(window.after, take=window.take + window.offset)
    found = _MERGED.format(
        walks=" UNION ALL ".join(walks),
        direction=direction,
        take=asked.bind(window.take),
        skip=asked.bind(window.offset),
    )
    if query.as_of is not None:
        found = _LOOKED_UP_THEN.format(keys=found, then=_THEN.format(as_of=asked.bind(query.as_of)))
    elif asked.source is _PLACES:
        found = _LOOKED_UP.format(keys=found)
    return _PAGE.format(found=found, direction=direction), asked.args


class _List:
    """The walks that a list is merged from, with the arguments of all of them; the first is always the tenant."""

    def __init__(self, call: Call, query: BookingsQuery) -> None:
        self.args: list[Any] = [call.tenant]
        self._query = query
        self._now = query.as_of or call.now
        self._of_some = query.series_id is not None or query.booker_email is not None
        self.source = _BOOKINGS if query.as_of or query.host_id is None or self._of_some else _PLACES

    def bind(self, value: Any) -> str:
        """One more argument; returns how the query names it."""
        self.args.append(value)
        return f"${len(self.args)}"

    def walks(self, after: Key | None = None, take: int | None = None) -> list[str]:
        """Each with its rows in order, at most `take`."""
        query = self._query
        if query.as_of is not None and not (self._of_some or query.host_id or query.event_type_id):
            return self._by_day(after, take)
        source = self.source if query.as_of is None else _BOOKINGS._replace(tables=self._then(self._candidates()))
        where = self._narrowed(source)
        return [self._walk(source, [*where, *part], after, take) for part in self._by_status(source)]

    def _walk(self, source: _Source, where: list[str], after: Key | None, take: int | None) -> str:
        direction, beyond = ("DESC", "<") if self._query.order == "desc" else ("ASC", ">")
        if after is not None:
            place = f"({self.bind(after.start_at)}, {self.bind(after.id)})"
            where = [*where, f"({source.start}, {source.id}) {beyond} {place}"]
        return _WALK.format(
            columns=_WHOLE if source is _BOOKINGS else f"{source.tenant}, {source.id} AS id, {source.start}",
            tables=source.tables,
            where=" AND ".join(where),
            order=f"{source.start} {direction}, {source.id} {direction}",
            take=self.bind(take) if take is not None else "ALL",
        )

    def _narrowed(self, source: _Source) -> list[str]:
        """What is asked beside status and time."""
        query = self._query
        where = [f"{source.tenant} = $1"]
        if query.event_type_id is not None:
            where.append(f"{source.event_type} = {self.bind(query.event_type_id)}")
        if query.series_id is not None:
            where.append(f"b.series_id = {self.bind(query.series_id)}")
        if query.booker_email is not None:
            # No address that can be booked with has a blank: it is a plus that the client did not escape.
            known = self.bind(people.email_hash(query.booker_email.strip().replace(" ", "+")))
            where.append(f"b.person_id = ({people.PERSON_OF.replace('$2', known)})")
        if query.start_after is not None:
            where.append(f"{source.start} >= {self.bind(query.start_after)}")
        if query.start_before is not None:
            where.append(f"{source.start} < {self.bind(query.start_before)}")
        if query.host_id is not None:
            where += self._of_host(source, self.bind(query.host_id))
        return where

    def _of_host(self, source: _Source, host: str) -> list[str]:
        if self._query.as_of is not None:
            return [f"{host} IN (SELECT json_array_elements_text(b.host_ids))"]
        if source is _PLACES:
            return [f"s.subject_id = {host}", "starts_with(s.holder_id, 'bkg_')"]
        return [_HAS_PLACE.format(tenant="$1", host=host)]

    def _by_status(self, source: _Source) -> list[list[str]]:
        """What each walk asks of status and time."""
        parts = []
        for status in statuses(self._query):
            part = [] if status is None else [f"{source.status} = {self.bind(status)}"]
            if self._query.upcoming is True:
                part += [
                    f"{source.start} > {self.bind(self._now - _LONGEST)}",
                    f"{source.end} > {self.bind(self._now)}",
                ]
            elif self._query.upcoming is False and status in OPEN:
                part += [f"{source.start} < {self.bind(self._now)}", f"{source.end} <= {self.bind(self._now)}"]
            parts.append(part)
        return parts

    def _then(self, candidates: str) -> str:
        """The bookings of a table expression `k` as they were at the moment."""
        return _ALL_THEN.format(candidates=candidates, then=_THEN.format(as_of=self.bind(self._query.as_of)))

    def _candidates(self) -> str:
        """What may have been asked for at the moment; all else is narrowed by what never changes of a booking."""
        host = self._query.host_id
        return _EVER_OF_HOST.format(tenant="$1", host=self.bind(host)) if host is not None else "bookings k"

    def _by_day(self, after: Key | None, take: int | None) -> list[str]:
        """What is over by the days of it all; what was still open began at most a day before, or its timer is late."""
        query = self._query
        asked = [status for status in statuses(query) if status is not None] or list(get_args(Status))
        over = [status for status in asked if status not in OPEN]
        still_open = [status for status in asked if status in OPEN]
        walks = [self._days(over, query.start_after, query.start_before, after, take)] if over else []
        if not still_open:
            return walks
        recent = self._now - _LONGEST
        since, until = max(filter(None, (query.start_after, recent))), query.start_before
        if query.upcoming is False:
            until = min(filter(None, (until, self._now)))
        walks.append(self._days(still_open, since, until, after, take))
        if query.upcoming is not True:
            walks.append(self._late(still_open, recent, after, take))
        return walks

    def _days(
        self,
        asked: Sequence[Status],
        since: datetime | None,
        until: datetime | None,
        after: Key | None,
        take: int | None,
    ) -> str:
        query = self._query
        return _BY_DAY.format(
            tenant="$1",
            as_of=self.bind(query.as_of),
            statuses=self.bind(asked),
            since=self.bind(since),
            until=self.bind(until),
            upcoming=self.bind(query.upcoming),
            descending=self.bind(query.order == "desc"),
            start=self.bind(after.start_at if after is not None else None),
            id=self.bind(after.id if after is not None else None),
            take=self.bind(take),
        )

    def _late(self, asked: Sequence[Status], recent: datetime, after: Key | None, take: int | None) -> str:
        since = self.bind(recent)
        source = _BOOKINGS._replace(tables=self._then(_LATE.format(tenant="$1", recent=since)))
        where = [*self._narrowed(source), f"b.status = ANY ({self.bind(asked)})", f"b.start_at < {since}"]
        return self._walk(source, where, after, take)
