"""GET .../availability, POST /availability/query and explain."""

import asyncio
import math
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final, TypeVar
from weakref import ref

import msgspec

from kalends_availability.domain import ask as asks
from kalends_availability.domain import offer
from kalends_availability.domain.bits import Frame
from kalends_availability.domain.busy import Facts
from kalends_availability.domain.plan import Plan
from kalends_availability.domain.rules import Ask, View
from kalends_availability.domain.zones import Zone, day_of, minute_of, zone
from kalends_availability.handlers.context import Context, unknown, wall
from kalends_availability.store.answers import Answers, Kept
from kalends_shared.contracts.availability import AvailabilityQuery, ExplainQuery, ManyAnswers, ManyQueries
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import decode, query
from kalends_shared.contracts.errors import FieldError, KalendsError, invalid

MOST_DAYS: Final = 92
T = TypeVar("T")
_encode: Final = msgspec.json.Encoder().encode


class Slots:
    """The handlers that compute slots for callers."""

    def __init__(self, ctx: Context, answers: Answers) -> None:
        self._ctx = ctx
        self._answers = answers

    async def availability(self, call: Call) -> Reply:
        asked = await self._asked(call, read)
        await self._ctx.seen(call)
        plan = await self._plan(call, asked.as_of)
        body, etag = await self._answer(call, plan, asked, call.query)
        # Of what the caller has, the gateway answers 304: the body need not travel there.
        return Reply(body=b"" if etag == call.if_none_match else body, etag=etag)

    async def query(self, call: Call) -> Reply:
        asked = decode(call.body, ManyQueries)
        _dates(asked.start, asked.end, "#/")
        await self._ctx.seen(call)
        found: list[msgspec.Raw] = []
        for i, one in enumerate(asked.queries):
            wanted = AvailabilityQuery(
                start=asked.start, end=asked.end, timezone=asked.timezone, host_id=one.host_id, duration=one.duration
            )
            try:
                plan = await self._ctx.replica.plan(call.tenant, one.event_type_id)
                if plan is None:
                    raise invalid(f"#/queries/{i}/event_type_id", "not_found", "is not an event type here")
                text = f"{asked.start}/{asked.end}/{asked.timezone}/{one.host_id}/{one.duration}"
                body, _ = await self._answer(call, plan, wanted, text, f"#/queries/{i}/")
                found.append(msgspec.Raw(body))
                await asyncio.sleep(0)  # fifty long answers are not to hold up the others' short ones
            except KalendsError as error:
                found.append(_refused(error))
        return Reply(body=ManyAnswers(found))

    async def explain(self, call: Call) -> Reply:
        asked = await self._asked(call, lambda text: query(text, ExplainQuery))
        await self._ctx.seen(call)
        plan = await self._plan(call, asked.as_of)
        if asks.outside_time(asked.start_at):
            raise invalid("?start_at", "invalid", "is too far away")
        wanted = Ask(
            now=asked.as_of or call.now,
            minutes=_minutes(plan, asked.duration, "?"),
            seats=asked.seats,
            ignored=asks.ignored(asked.booking_id, asked.hold_id),
            wall=asked.as_of.timestamp() if asked.as_of else wall(),
        )
        frame = asks.frame_at(plan, minute_of(asked.start_at))
        facts = await self._facts(call, plan, frame, [host.id for host in plan.hosts], asked.as_of, named=True)
        return Reply(body=asks.explained(plan, facts, wanted, asked.start_at))

    async def _asked(self, call: Call, reader: Callable[[str], T]) -> T:
        """The parameters; that there is no such event type is told before what is wrong with them."""
        try:
            return reader(call.query)
        except KalendsError:
            await self._plan(call, None)
            raise

    async def _plan(self, call: Call, as_of: datetime | None) -> Plan:
        id_ = call.params["id"]
        if as_of is None:
            plan = await self._ctx.replica.plan(call.tenant, id_)
        elif as_of > call.now:
            raise invalid("?as_of", "invalid", "must not be in the future")
        else:
            plan = await self._ctx.replica.plan_at(call.tenant, id_, as_of)
        if plan is None:
            raise unknown("event type")
        return plan

    async def _facts(
        self, call: Call, plan: Plan, frame: Frame, hosts: list[str], as_of: datetime | None, *, named: bool
    ) -> Facts:
        if as_of is None:
            return await self._ctx.replica.facts(call.tenant, plan, frame, hosts, named=named)
        return await self._ctx.replica.facts_at(call.tenant, plan, frame, hosts, as_of)

    async def _answer(
        self, call: Call, plan: Plan, asked: AvailabilityQuery, text: str, at: str = "?"
    ) -> tuple[bytes, str]:
        """The body of an answer, and its ETag, which names what is in it: so it changes when time alone changes the answer.

        `text` tells questions of one event type apart, `at` is where its fields stand.
        """
        as_of, ignored = asked.as_of, asks.ignored(asked.booking_id, asked.hold_id)
        at_now = as_of or call.now
        now, clock = at_now.timestamp(), as_of.timestamp() if as_of else wall()
        key = (call.tenant, plan.event_type.id, text)
        if (kept := self._answers.get(key, plan, now, clock)) is not None:
            facts = await self._facts(call, plan, kept.frame, kept.hosts, as_of, named=bool(ignored))
            if kept.right(facts.parts()):
                return kept.body, kept.etag
        where, first, last = _range(plan, asked, at)
        wanted = Ask(
            now=at_now,
            minutes=_minutes(plan, asked.duration, at),
            seats=asked.seats,
            host_id=_host(plan, asked.host_id, at),
            ignored=ignored,
            wall=clock,
        )
        frame = offer.frame_of(plan, wanted, where, first, last)
        hosts = [host.id for host in plan.hosts] if asked.host_id is None else [asked.host_id]
        # Whether calendars are stale is told also where nothing can be offered.
        looked = frame or Frame.over(minute_of(at_now), minute_of(at_now) + 1)
        facts = await self._facts(call, plan, looked, hosts, as_of, named=bool(ignored))
        view = View(plan, facts, wanted, frame) if frame else None
        body = offer.body(view, plan.event_type.id, where, first, last, asked.limit, _stale(facts, hosts, clock))
        etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        if view is not None and frame is not None and as_of is None:
            turns = _turns_stale(facts, hosts, clock)
            parts = [ref(part) for part in facts.parts()]
            self._answers.keep(key, Kept(ref(plan), frame, hosts, parts, now, view.until(), turns, body, etag))
        return body, etag


@lru_cache(maxsize=4096)
def read(text: str) -> AvailabilityQuery:
    """The parameters; many callers ask the same, and reading them costs more than looking up the answer."""
    return query(text, AvailabilityQuery)


def _range(plan: Plan, asked: AvailabilityQuery, at: str) -> tuple[Zone, int, int]:
    _dates(asked.start, asked.end, at)
    return zone(asked.timezone) if asked.timezone else plan.zone, day_of(asked.start), day_of(asked.end)


def _dates(start: date, end: date, at: str) -> None:
    days = day_of(end) - day_of(start) + 1
    if days < 1:
        raise invalid(f"{at}end", "invalid", "must not be before start")
    if days > MOST_DAYS:
        raise invalid(f"{at}end", "invalid", f"is more than {MOST_DAYS} days from start")


def _minutes(plan: Plan, duration: int | None, at: str) -> int:
    if duration is None:
        return plan.event_type.duration_minutes
    if duration not in plan.durations:
        raise invalid(f"{at}duration", "invalid", f"must be one of {', '.join(map(str, plan.durations))}")
    return duration


def _host(plan: Plan, host_id: str | None, at: str) -> str | None:
    if host_id is None:
        return None
    if plan.event_type.assignment == "collective" or plan.event_type.required_hosts > 1:
        raise invalid(f"{at}host_id", "invalid", "cannot be chosen where several hosts serve together")
    if all(host.id != host_id for host in plan.hosts):
        raise invalid(f"{at}host_id", "not_found", "is not a host of this event type")
    return host_id


def _stale(facts: Facts, hosts: list[str], clock: float) -> float | None:
    return min((since for id_ in hosts if (since := facts.external(id_).stale(clock)) is not None), default=None)


def _turns_stale(facts: Facts, hosts: list[str], clock: float) -> float:
    return min((at for id_ in hosts if (at := facts.external(id_).stale_at(clock)) is not None), default=math.inf)


class _Error(msgspec.Struct):
    code: str
    detail: str
    errors: tuple[FieldError, ...]


class _Refused(msgspec.Struct):
    error: _Error


def _refused(error: KalendsError) -> msgspec.Raw:
    return msgspec.Raw(_encode(_Refused(_Error(error.code, error.detail, error.fields))))
