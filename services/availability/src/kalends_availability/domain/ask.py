"""Quote, alternatives and explain: questions about single starts, asked of the same rules as availability."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import UNSET

from kalends_availability.domain.bits import Frame, ones, span
from kalends_availability.domain.busy import Facts
from kalends_availability.domain.plan import HostPlan, Plan
from kalends_availability.domain.rank import Standing, ranked
from kalends_availability.domain.rules import Ask, View
from kalends_availability.domain.verdicts import DETAILS, Judge, detail
from kalends_availability.domain.zones import DAY, FIRST_DAY, LAST_DAY, instant_of, minute_after, minute_of
from kalends_shared.contracts.availability import Cause, Explanation, HostVerdict, RuleVerdict
from kalends_shared.contracts.quotes import Alternative, QuotedHost, QuotedStart, Refusal

WITHIN: Final = timedelta(days=14)


def frame_at(plan: Plan, start: int) -> Frame:
    """The minutes around one start; the whole of its date in the event type's zone where 8b needs it."""
    if not plan.event_type.only_first_slot_of_day:
        return Frame.over(start, start + 1)
    dates = plan.zone.spans(*[plan.zone.local_day(start)] * 2)
    return Frame.over(dates[0][0], dates[-1][1])


def ignored(*ids: str | None) -> frozenset[str]:
    """What `Ask.ignored` is of the booking and the hold that a question names, if it does."""
    return frozenset(id_ for id_ in ids if id_ is not None)


def outside_time(at: datetime) -> bool:
    """Whether zones can be asked about it at all; nothing is offered where not."""
    return not FIRST_DAY + 3 <= int(at.timestamp()) // 60 // DAY <= LAST_DAY - 3


def quoted(
    plan: Plan, facts: Facts, ask: Ask, start_at: datetime, standings: Mapping[str, Standing], *, moves: bool = True
) -> QuotedStart:
    """One start: its hosts in ranked order, or the refusal.

    `moves` is False where only the host of a booking changes: then notice, window and grid, which are about its time,
    do not judge it again.
    """
    end_at = start_at + timedelta(minutes=ask.minutes)
    made = QuotedStart(start_at=start_at, end_at=end_at)
    if outside_time(start_at):
        made.refusal = _refusal("notice" if start_at < ask.now else "window", DETAILS["window"])
        return made
    start = minute_of(start_at)
    view = View(plan, facts, ask, frame_at(plan, start))
    judge = Judge(view, start, whole=start_at.timestamp() % 60 == 0)
    refused = judge.refusal(about_time=moves)
    if refused is None:
        hosts = [server.plan for server in judge.servers()]
        made.hosts = [_quoted(host, figures) for host, figures in ranked(plan, hosts, standings, view.now)]
    else:
        made.refusal = _refusal(refused, detail(refused, view, view.hosts[0]))
    # Only-first is the refusal that is told before a host's being busy (api.md), and after all others.
    if plan.event_type.only_first_slot_of_day and moves and refused in {None, "busy"}:
        made.earlier_starts = _earlier(view, start)
    return made


def _quoted(plan: HostPlan, figures: dict[str, float]) -> QuotedHost:
    host, limits = plan.host, plan.zone.name
    return QuotedHost(
        id=host.id,
        name=host.name,
        email=host.email,
        timezone=host.timezone or limits,
        limits_timezone=limits if limits != host.timezone else UNSET,
        rank=figures,
    )


def _refusal(rule: str, words: str) -> Refusal:
    return Refusal(code="slot_taken" if rule == "busy" else "slot_not_offered", rule=rule, detail=words)


def _earlier(view: View, start: int) -> list[tuple[datetime, list[str]]]:
    """The earlier starts of the date that the quote's rules allow, with their hosts: booking looks whether they are free."""
    day = view.plan.zone.local_day(start)
    base = view.frame.base
    allowed = view.frame.starts & view.notice & view.window & view.grid & ((1 << (start - base)) - 1)
    found: list[tuple[datetime, list[str]]] = []
    for at in ones(allowed):
        hosts = [h.plan.id for h in view.active if (h.fit & h.unfilled) >> at & 1]
        if len(hosts) >= view.needed and view.plan.zone.local_day(base + at) == day:
            found.append((instant_of(base + at), hosts))
    return found


def frame_after(plan: Plan, ask: Ask, after: datetime) -> Frame | None:
    """The minutes in which alternatives to a start are looked for."""
    begin = max(after, ask.now)
    if outside_time(begin):
        return None
    low = minute_after(begin)
    if plan.event_type.only_first_slot_of_day:
        low = plan.zone.spans(*[plan.zone.local_day(low)] * 2)[0][0]
    return Frame.over(low, minute_of(begin + WITHIN))


def alternatives(
    plan: Plan, facts: Facts, ask: Ask, frame: Frame, after: datetime, exclude: frozenset[int], limit: int
) -> list[Alternative]:
    """The next starts offered in the frame, not before `after`."""
    starts = View(plan, facts, ask, frame).offered & frame.starts & span(frame, minute_after(after), frame.end)
    out: list[Alternative] = []
    while starts and len(out) < limit:
        at = (starts & -starts).bit_length() - 1
        starts &= starts - 1
        if (minute := frame.base + at) not in exclude:
            start = instant_of(minute)
            out.append(Alternative(start, start + timedelta(minutes=ask.minutes)))
    return out


def explained(plan: Plan, facts: Facts, ask: Ask, start_at: datetime) -> Explanation:
    """Every rule's verdict on every host."""
    start = minute_of(start_at)
    view = View(plan, facts, ask, frame_at(plan, start))
    judge = Judge(view, start, whole=start_at.timestamp() % 60 == 0)
    hosts = []
    for host in view.hosts:
        verdicts = judge.verdicts(host)
        rules = [
            RuleVerdict(
                v.rule, v.ok, None if v.ok else detail(v.rule, view, host), Cause(*v.cause) if v.cause else None
            )
            for v in verdicts
        ]
        hosts.append(HostVerdict(host.plan.id, all(v.ok for v in verdicts), rules))
    offered = judge.whole and judge.has(view.offered)
    return Explanation(start_at, offered, hosts)
