"""What booking asks: quote and alternatives."""

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from kalends_availability.domain import ask as asks
from kalends_availability.domain.busy import Facts
from kalends_availability.domain.plan import Plan
from kalends_availability.domain.rules import Ask
from kalends_availability.domain.zones import minute_of
from kalends_availability.handlers.context import Context, wall
from kalends_availability.store import busy, objects
from kalends_shared.contracts.availability import Location
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import KalendsError, invalid
from kalends_shared.contracts.quotes import (
    Alternatives,
    AlternativesRequest,
    Quote,
    QuotedResource,
    QuotedStart,
    QuoteRequest,
)
from kalends_shared.event_store import Position

SEEN_SECONDS: Final = 0.12  # booking waits 0.2 s for the whole answer
_QUOTE: Final = msgspec.json.Decoder(QuoteRequest)
_ALTERNATIVES: Final = msgspec.json.Decoder(AlternativesRequest)


class Quotes:
    """The handlers that booking calls."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def quote(self, call: Call) -> Reply:
        asked = _QUOTE.decode(call.body)
        plan = await self._ctx.replica.plan(call.tenant, asked.event_type_id)
        if plan is None:
            if asked.booking_id is not None:
                # A booking outlives an event type that was deleted as it was made; to move it there are no rules left.
                raise KalendsError("inactive", "The booking's event type has been deleted.")
            raise invalid("#/event_type_id", "not_found", "is not an event type here")
        kind = plan.event_type
        converts = asked.purpose == "book" and asked.hold_id is not None
        if not kind.active and not converts and asked.purpose != "reassign":
            raise KalendsError("inactive", "The event type is not active.")
        await self._check_host(call, plan, asked.host_id, alone=asked.purpose == "reassign")
        minutes = await self._minutes(call, plan, asked)
        location = await self._location(call, plan, asked.location_id)
        standings = await self._ctx.replica.standings(call.tenant, plan, call.now)
        hosts = [host.id for host in plan.hosts] if asked.host_id is None else [asked.host_id]
        starts: list[QuotedStart] = []
        for n, start_at in enumerate((asked.start_at, *asked.more_starts)):
            wanted = Ask(
                now=call.now,
                minutes=minutes,
                seats=asked.seats,
                host_id=asked.host_id,
                ignored=asks.ignored(asked.booking_id, asked.hold_id),
                wall=wall(),
                series=n > 0,
            )
            facts = await self._external(call, plan, start_at, hosts)
            moves = asked.purpose != "reassign"
            starts.append(asks.quoted(plan, facts, wanted, start_at, standings, moves=moves))
        return Reply(
            body=Quote(
                quoted_at=call.now,
                event_type=kind,
                timezone=plan.zone.name,
                host_zones={host.id: host.zone.name for host in plan.hosts} if kind.only_first_slot_of_day else {},
                location=location,
                resources=[QuotedResource(one.id, one.quantity) for one in plan.resources],
                starts=starts,
            )
        )

    async def alternatives(self, call: Call) -> Reply:
        asked = _ALTERNATIVES.decode(call.body)
        # Past this it offers what it knows; an alternative that is taken by then is refused like any other start.
        await self._ctx.caught_up(Position(*asked.seen), SEEN_SECONDS)
        plan = await self._ctx.replica.plan(call.tenant, asked.event_type_id)
        if plan is None:
            return Reply(body=Alternatives([]))
        host_id = asked.host_id if any(host.id == asked.host_id for host in plan.hosts) else None
        wanted = Ask(
            now=call.now,
            minutes=asked.duration_minutes or plan.event_type.duration_minutes,
            seats=asked.seats,
            host_id=host_id,
            ignored=asks.ignored(asked.booking_id, asked.hold_id),
            wall=wall(),
        )
        frame = asks.frame_after(plan, wanted, asked.after)
        if frame is None:
            return Reply(body=Alternatives([]))
        hosts = [host.id for host in plan.hosts] if host_id is None else [host_id]
        facts = await self._ctx.replica.facts(call.tenant, plan, frame, hosts, named=bool(wanted.ignored))
        exclude = frozenset(minute_of(at) for at in asked.exclude)
        after = max(asked.after, call.now)
        return Reply(body=Alternatives(asks.alternatives(plan, facts, wanted, frame, after, exclude, asked.limit)))

    async def _external(self, call: Call, plan: Plan, start_at: datetime, hosts: list[str]) -> Facts:
        if asks.outside_time(start_at):
            return Facts()
        frame = asks.frame_at(plan, minute_of(start_at))
        return await self._ctx.replica.facts(call.tenant, plan, frame, hosts, booked=False)

    async def _check_host(self, call: Call, plan: Plan, host_id: str | None, *, alone: bool) -> None:
        """Holds a chosen host to the event type; `alone`: it takes one host's part, whoever else serves with it."""
        if host_id is None:
            return
        if any(host.id == host_id for host in plan.hosts):
            if not alone and (plan.event_type.assignment == "collective" or plan.event_type.required_hosts > 1):
                raise invalid("#/host_id", "invalid", "cannot be chosen where several hosts serve together")
            return
        there = await objects.kinds(self._ctx.db.pool, call.tenant, [host_id])
        if there.get(host_id) == "host":
            raise invalid("#/host_id", "invalid", "is not a host of this event type")
        raise invalid("#/host_id", "not_found", "is not a host here")

    async def _minutes(self, call: Call, plan: Plan, asked: QuoteRequest) -> int:
        if asked.end_at is None:
            return plan.event_type.duration_minutes
        length = asked.end_at - asked.start_at
        minutes = length // timedelta(minutes=1)
        if length == timedelta(minutes=minutes) and minutes > 0:
            if minutes in plan.durations or asked.purpose == "reassign":
                return minutes
            # A booking that moves keeps its length, also where the event type has since been given others.
            if asked.purpose == "reschedule" and asked.booking_id is not None:
                kept = await busy.length(self._ctx.db.pool, call.tenant, asked.booking_id)
                if kept == minutes:
                    return minutes
        raise invalid("#/end_at", "invalid", f"must be {_either(plan.durations)} minutes after start_at")

    async def _location(self, call: Call, plan: Plan, location_id: str | None) -> Location | None:
        if location_id is None:
            return plan.locations[0] if len(plan.locations) == 1 else None
        found = next((one for one in plan.locations if one.id == location_id), None)
        if found is not None:
            return found
        row = await objects.one(self._ctx.db.pool, call.tenant, "location", location_id)
        if row is None:
            raise invalid("#/location_id", "not_found", "is not a location here")
        if plan.locations:
            raise invalid("#/location_id", "invalid", "is not a location of this event type")
        # An event type that names no location may be booked for any.
        return msgspec.json.decode(row.body, type=Location)


def _either(values: Any) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last
