"""The slot engine alone, in one process: no database, no network, no encoding. Goals: 1 host, 1 month, 30-minute slots,
60 busy intervals 0.35 ms; 50 hosts collective 3 ms; with day, week and month limits 6 ms. They are held to the first question
after all hosts' busy time has changed, bookings counted by period; what is asked again finds its masks.

.venv/bin/python bench/engine.py
"""

import argparse
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TypeVar

from _machine import machine

from kalends_availability.domain import offer
from kalends_availability.domain.ask import quoted
from kalends_availability.domain.bits import ones
from kalends_availability.domain.busy import Counted, Facts, Reservation, Reservations, Tally
from kalends_availability.domain.memo import bit_memo
from kalends_availability.domain.plan import Plan, Settings
from kalends_availability.domain.rules import Ask, View
from kalends_availability.domain.zones import day_of, minute_of, zone
from kalends_shared.contracts.availability import EventType, EventTypeHost, Host, Limit, Schedule, WeeklyWindow

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
MADRID = zone("Europe/Madrid")
FIRST = day_of(date(2026, 3, 2))
T = TypeVar("T")
LIMITS = [Limit(count=3, per="day"), Limit(count=12, per="week"), Limit(minutes=3000, per="month")]


def plan_of(hosts: int, assignment: str = "collective", limits: list[Limit] | None = None) -> Plan:
    """Hosts with a schedule each, 9 to 17 on working days."""
    made = {"created_at": NOW, "updated_at": NOW, "version": 1}
    week = [WeeklyWindow(["mon", "tue", "wed", "thu", "fri"], "09:00", "17:00")]
    schedules = {
        f"sch_{n}": Schedule(id=f"sch_{n}", name="s", timezone=MADRID.name, weekly=week, **made) for n in range(hosts)
    }
    people = {
        f"hst_{n}": Host(id=f"hst_{n}", name="h", timezone="UTC", schedule_id=f"sch_{n}", **made) for n in range(hosts)
    }
    kind = EventType(
        id="evt_1", title="t", slug="t", duration_minutes=30, durations=[30], hosts=[EventTypeHost(h) for h in people],
        assignment="single" if hosts == 1 else assignment, limits=limits or [], booking_window=None, **made,
    )  # fmt: skip
    return Plan(Settings(kind, people, schedules), bit_memo(100_000_000))


def facts_of(hosts: int, busy: int, days: int) -> Facts:
    """Busy intervals of each host, spread over the days."""
    reserved, tallies = {}, {}
    for host in range(hosts):
        entries = []
        for n in range(busy):
            start = minute_of(datetime(2026, 3, 2, 8, tzinfo=UTC) + timedelta(days=n * days / max(busy, 1)))
            start = start // 1440 * 1440 + 480 + (n * 7 + host % 3) % 16 * 30
            entries.append(Reservation(start - 5, start + 35, start, start + 30, f"bkg_{n}", "evt_1", 1))
        reserved[f"hst_{host}"] = Reservations(entries)
        tallies[f"hst_{host}"] = Tally([Counted(e.start, e.end, e.id) for e in entries])
    return Facts(reserved, tallies=tallies)


def best(work: Callable[[], object], seconds: float = 0.3) -> float:
    """Milliseconds of CPU a run, the best of many: what the machine does beside it is not the engine's."""
    work()
    found = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = time.process_time()
        work()
        found = min(found, time.process_time() - begin)
    return found * 1000


def count(facts: Facts, hosts: int) -> None:
    """Counts bookings by day, week, month and year, as the first question about limits does."""
    for host in range(hosts):
        facts.tally(f"hst_{host}").sums(MADRID, NOW.timestamp())


def least(work: Callable[[T], object], many: Sequence[T]) -> float:
    """Milliseconds of CPU, the least that it took with one of them: each is asked about once."""
    found = float("inf")
    for one in many:
        begin = time.process_time()
        work(one)
        found = min(found, time.process_time() - begin)
    return found * 1000


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(machine())
    ask = Ask(now=NOW, minutes=30)

    def row(name: str, hosts: int, busy: int, days: int, goal: float | None = None, **settings: object) -> None:
        plan = plan_of(hosts, **settings)  # type: ignore[arg-type]
        facts = facts_of(hosts, busy, days)
        frame = offer.frame_of(plan, ask, MADRID, FIRST, FIRST + days - 1)
        assert frame is not None
        times = 6 if hosts > 50 else 20
        # A plan and busy time that nobody has asked about: those of a process that has just begun.
        fresh = [plan_of(hosts, **settings) for _ in range(times)]  # type: ignore[arg-type]
        first = least(lambda one: ones(View(one, facts, ask, frame).offered), fresh)
        anew = [facts_of(hosts, busy, days) for _ in range(times)]
        for one in anew:
            count(one, hosts)
        changed = least(lambda one: ones(View(plan, one, ask, frame).offered), anew)
        again = best(lambda: ones(View(plan, facts, ask, frame).offered))
        text = best(
            lambda: offer.body(View(plan, facts, ask, frame), "evt_1", MADRID, FIRST, FIRST + days - 1, None, None)
        )
        slots = len(ones(View(plan, facts, ask, frame).offered))
        aim = "" if goal is None else f"   goal {goal:g} ms: {'held' if changed <= goal else 'NOT HELD'}"
        print(
            f"{name:34} {changed:8.3f} ms   asked again {again:8.3f} ms   with JSON {text:8.3f} ms   "
            f"first time {first:8.3f} ms   {slots:5} slots{aim}"
        )

    print("busy time of all hosts new, settings known:")
    row("1 host, 7 days, 10 busy", 1, 10, 7)
    row("1 host, 31 days, 60 busy", 1, 60, 31, 0.35)
    row("1 host, 92 days, 180 busy", 1, 180, 92)
    row("1 host, 92 days, 5,000 busy", 1, 5000, 92)
    row("10 hosts collective, 31 days", 10, 60, 31)
    row("50 hosts collective, 31 days", 50, 60, 31, 3.0)
    row("50 hosts collective, limits", 50, 60, 31, 6.0, limits=LIMITS)
    row("50 hosts round robin, 31 days", 50, 60, 31, assignment="round_robin")
    row("1,000 hosts round robin, 7 days", 1000, 14, 7, assignment="round_robin")
    counted = least(lambda facts: count(facts, 50), [facts_of(50, 60, 31) for _ in range(20)])
    print(f"{'count 60 bookings of 50 hosts':34} {counted:8.3f} ms")
    at = datetime(2026, 3, 3, 9, tzinfo=UTC)
    for hosts in (1, 50, 1000):
        plan, facts = plan_of(hosts, "round_robin"), facts_of(hosts, 60, 31)
        print(f"{f'quote, {hosts} host(s)':34} {best(partial(quoted, plan, facts, ask, at, {})):8.3f} ms")


if __name__ == "__main__":
    main()
