"""Everybody wants the same twenty slots, by every command there is, while services die: then an auditor reads the tables."""

import asyncio
import os
import random
import uuid
from collections import Counter
from typing import Any, Final

import pytest
from harness.client import ALWAYS, Client, booking, slot, until
from harness.judge import LATEST, Judge
from harness.stack import Stack

FULL: Final = bool(os.environ.get("KALENDS_TEST_FULL"))
STEPS: Final = 2_000 if FULL else 400
KILLS: Final = 8 if FULL else 3
CLIENTS: Final = 24
SLOTS: Final = [slot(n, days_ahead=5) for n in range(20)]
HOSTS: Final = 5
CAPACITY: Final = 3
A_DAY: Final = 6
VICTIMS: Final = ("booking", "booking-2", "availability", "availability-2", "gateway", "gateway-2")

# What is in force by the events alone: a row a booking or hold and subject.
IN_FORCE: Final = """
WITH latest AS (
    SELECT DISTINCT ON (tenant_id, stream_id) tenant_id, stream_id, state::jsonb AS state
    FROM booking.events WHERE stream_id LIKE 'bkg\\_%' OR stream_id LIKE 'hld\\_%'
    ORDER BY tenant_id, stream_id, version DESC
), holders AS (
    SELECT tenant_id, stream_id, state->>'event_type_id' AS event_type, state->>'status' AS status,
        (state->>'start_at')::timestamptz AS starts, (state->>'end_at')::timestamptz AS ends,
        (state->>'seats')::int AS seats, state->'host_ids' AS hosts
    FROM latest
    WHERE state->>'status' IN ('pending', 'confirmed')
        OR (state->>'status' = 'active' AND (state->>'expires_at')::timestamptz > now())
), placed AS (
    SELECT h.*, host FROM holders h, jsonb_array_elements_text(h.hosts) AS host
)
"""
OVER_CAPACITY: Final = (
    IN_FORCE + "SELECT host, event_type, starts, sum(seats) FROM placed GROUP BY 1, 2, 3, ends HAVING sum(seats) > $1"
)
# Different slots of a host whose times meet; the same slot twice is a group's.
OVERLAPPING: Final = (
    IN_FORCE
    + """
SELECT a.stream_id, b.stream_id FROM placed a JOIN placed b ON a.tenant_id = b.tenant_id AND a.host = b.host
    AND a.stream_id < b.stream_id AND a.starts < b.ends AND b.starts < a.ends
WHERE NOT (a.event_type = b.event_type AND a.starts = b.starts AND a.ends = b.ends AND a.event_type = $1)
"""
)
OVER_LIMIT: Final = (
    IN_FORCE
    + """
SELECT host, starts::date, count(DISTINCT starts) FROM placed WHERE event_type = $1 GROUP BY 1, 2
HAVING count(DISTINCT starts) > $2
"""
)
UNRESERVED: Final = (
    IN_FORCE
    + """
SELECT p.stream_id FROM placed p WHERE NOT EXISTS (
    SELECT FROM booking.reservations r WHERE r.tenant_id = p.tenant_id AND r.subject_id = p.host
        AND r.start_at = p.starts AND r.end_at = p.ends)
"""
)
RESERVED_FOR_NOBODY: Final = (
    IN_FORCE
    + """
SELECT r.subject_id, r.start_at FROM booking.reservations r WHERE r.start_at > now() AND NOT EXISTS (
    SELECT FROM placed p WHERE p.tenant_id = r.tenant_id AND p.host = r.subject_id AND p.starts = r.start_at
        AND p.ends = r.end_at)
AND NOT EXISTS (
    SELECT FROM booking.seats s WHERE s.tenant_id = r.tenant_id AND s.subject_id = r.subject_id
        AND s.start_at = r.start_at AND s.expires_at <= now())
"""
)


class Storm:
    """Random commands on what it has made so far; every answer is either what was asked for or a refusal of the contract."""

    def __init__(self, api: Client, group: str, single: str, rng: random.Random) -> None:
        self.api, self.group, self.single, self.rng = api, group, single, rng
        self.booked: list[str] = []
        self.held: list[tuple[str, str, str, int]] = []
        self.given_up: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.steps = 0

    async def run(self, steps: int) -> None:
        async def client() -> None:
            while self.steps < steps:
                self.steps += 1
                await self.step()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def reached(self, steps: int) -> bool:
        return self.steps >= steps

    async def step(self) -> None:
        act = self.rng.choices(
            [self.create, self.hold, self.convert, self.reschedule, self.cancel, self.approve], [40, 15, 10, 15, 12, 8]
        )[0]
        await act()

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The thing where it was done, None where it was refused."""
        answer = await self.api.persist(path, body, key=str(uuid.uuid4()))
        name = path.rpartition("/")[2]
        self.answers[f"{name} {answer.json().get('code', answer.status_code)}"] += 1
        return answer.json() if answer.is_success else None

    def wanted(self) -> tuple[str, str, int]:
        kind = self.rng.choice([self.group, self.single])
        return kind, self.rng.choice(SLOTS), self.rng.randint(1, 2) if kind == self.group else 1

    async def create(self) -> None:
        kind, start_at, seats = self.wanted()
        if made := await self.ask("/bookings", booking(kind, start_at, seats=seats)):
            self.booked.append(made["id"])

    async def hold(self) -> None:
        kind, start_at, seats = self.wanted()
        ttl = self.rng.choice([1, 600])
        body = {"event_type_id": kind, "start_at": start_at, "seats": seats, "ttl_seconds": ttl}
        if made := await self.ask("/holds", body):
            self.held.append((made["id"], kind, start_at, seats))

    async def convert(self) -> None:
        if self.held:
            hold_id, kind, start_at, seats = self.rng.choice(self.held)
            if made := await self.ask("/bookings", booking(kind, start_at, seats=seats, hold_id=hold_id)):
                self.booked.append(made["id"])

    async def reschedule(self) -> None:
        if self.booked:
            await self.ask(f"/bookings/{self.rng.choice(self.booked)}/reschedule", {"start_at": self.rng.choice(SLOTS)})

    async def cancel(self) -> None:
        if self.booked:
            one = self.rng.choice(self.booked)
            self.given_up.add(one)
            await self.ask(f"/bookings/{one}/cancel", {})

    async def approve(self) -> None:
        if self.booked:
            await self.ask(f"/bookings/{self.rng.choice(self.booked)}/approve", {})


async def kill_at_random(stack: Stack, storm: Storm, rng: random.Random) -> None:
    for n in range(KILLS):
        due = STEPS * (n + 1) // (KILLS + 2)
        await until(lambda due=due: storm.reached(due), 180, f"step {due}")
        victim = rng.choice(VICTIMS)
        assert storm.api.outstanding, "a command in flight"
        await asyncio.to_thread(stack.wait_restarted, victim, stack.kill(victim))


@pytest.mark.timeout(600)
async def test_a_storm_over_few_slots_breaks_no_rule(stack: Stack, api: Client) -> None:
    rng = random.Random(20260410)
    schedule = await api.ok("POST", "/schedules", ALWAYS)
    hosts = [
        (await api.ok("POST", "/hosts", {"name": f"Host {n}", "schedule_id": schedule["id"], "timezone": "UTC"}))["id"]
        for n in range(HOSTS)
    ]
    several = {"title": "Storm", "duration_minutes": 30, "hosts": [{"host_id": one} for one in hosts]}
    kinds = [
        {"assignment": "round_robin", "capacity": CAPACITY, "requires_confirmation": True},
        {"assignment": "any", "limits": [{"count": A_DAY, "per": "day"}]},
    ]
    group, single = [
        (await api.ok("POST", "/event-types", several | kind | {"slug": f"s-{uuid.uuid4().hex[:12]}"}))["id"]
        for kind in kinds
    ]
    storm, judge = Storm(api, group, single, rng), Judge(stack.database)
    running = asyncio.create_task(storm.run(STEPS))
    await kill_at_random(stack, storm, rng)
    await asyncio.wait_for(running, 300)

    refusals = {"slot_taken", "limit_reached", "hold_expired", "invalid_state", "201", "200"}
    assert {name.partition(" ")[2] for name in storm.answers} <= refusals, storm.answers
    assert storm.answers["bookings 201"] >= len(SLOTS), storm.answers
    latest = await judge.fetch(LATEST)
    statuses = {row["stream_id"]: row["state"] for row in latest}
    assert set(storm.booked) <= statuses.keys()
    kept = [one for one in storm.booked if one not in storm.given_up]
    assert all('"pending"' in statuses[one] or '"confirmed"' in statuses[one] for one in kept)
    assert await judge.fetch(OVER_CAPACITY, CAPACITY) == []
    assert await judge.fetch(OVERLAPPING, group) == []
    assert await judge.fetch(OVER_LIMIT, single, A_DAY) == []
    assert await judge.fetch(UNRESERVED) == []
    assert await judge.fetch(RESERVED_FOR_NOBODY) == []
    await judge.close()
    assert "deadlock detected" not in (stack.folder / "logs" / "postgres.log").read_text(errors="replace")
