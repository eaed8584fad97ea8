"""Everybody wants the same twenty slots, by every command there is, while services die: then an auditor reads the tables."""

import asyncio
import json
import random
import uuid
from collections import Counter
from datetime import datetime
from typing import Any, Final

import pytest
from harness.auditor import EXPIRING, UNHEARD_OF, findings
from harness.client import ALWAYS, Client, booking, slot, until
from harness.judge import Judge
from harness.stack import Stack

from kalends_shared.testkit import scale

STEPS: Final = scale.count(reduced=400, full=2_000)
KILLS: Final = scale.count(reduced=3, full=8)
CLIENTS: Final = 24
SLOTS: Final = [slot(n, days_ahead=5) for n in range(20)]
HOSTS: Final = 5
CAPACITY: Final = 3
A_DAY: Final = 6
VICTIMS: Final = ("booking", "booking-2", "availability", "availability-2", "gateway", "gateway-2")
REFUSALS: Final = {
    "bookings": {"slot_taken", "limit_reached", "hold_expired"},
    "holds": {"slot_taken", "limit_reached"},
    "reschedule": {"slot_taken", "limit_reached", "invalid_state"},
    # validation_failed: the host whose part was to be given away had lost it meanwhile.
    "reassign": {"slot_taken", "limit_reached", "invalid_state", "validation_failed"},
    "cancel": {"invalid_state"},
    "approve": {"invalid_state"},
    "decline": {"invalid_state"},
}


class Storm:
    """Random commands on what it has made so far; every answer is either what was asked for or a refusal of the contract.

    `said` are the answers that tell of a booking or hold: what was acknowledged.
    """

    def __init__(self, api: Client, kinds: dict[str, str], hosts: list[str], rng: random.Random) -> None:
        self.api, self.kinds, self.hosts, self.rng = api, kinds, hosts, rng
        self.booked: dict[str, list[str]] = {}
        self.ended: set[str] = set()
        self.held: list[tuple[str, str, str, int]] = []
        self.said: list[tuple[str, int, str, datetime]] = []
        self.answers: Counter[str] = Counter()
        self.steps = 0
        self.over = False

    async def run(self, steps: int) -> None:
        """So many steps, and more until it is `over`."""

        async def client() -> None:
            while self.steps < steps or not self.over:
                self.steps += 1
                await self.step()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def reached(self, steps: int) -> bool:
        return self.steps >= steps

    async def in_flight(self) -> bool:
        return bool(self.api.outstanding)

    async def step(self) -> None:
        acts = {
            self.create: 34,
            self.hold: 15,
            self.convert: 10,
            self.reschedule: 14,
            self.reassign: 12,
            self.cancel: 10,
            self.approve: 5,
            self.decline: 2,
        }
        await self.rng.choices(list(acts), list(acts.values()))[0]()

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The thing where it was done, None where it was refused."""
        answer = await self.api.persist(path, body, key=str(uuid.uuid4()))
        name, told = path.rpartition("/")[2], answer.json()
        self.answers[f"{name} {told.get('code', answer.status_code)}"] += 1
        if not answer.is_success:
            return None
        self.said.append((told["id"], told["version"], told["status"], datetime.fromisoformat(told["start_at"])))
        if told["id"].startswith("bkg_"):
            self.booked[told["id"]] = told["host_ids"]
            self.ended |= {told["id"]} if told["status"] in {"cancelled", "declined"} else set()
        return told

    def wanted(self) -> tuple[str, str, int]:
        kind = self.rng.choice(list(self.kinds))
        return self.kinds[kind], self.rng.choice(SLOTS), self.rng.randint(1, 2) if kind == "group" else 1

    async def create(self) -> None:
        kind, start_at, seats = self.wanted()
        await self.ask("/bookings", booking(kind, start_at, seats=seats))

    async def hold(self) -> None:
        kind, start_at, seats = self.wanted()
        ttl = self.rng.choice([1, 600])
        body = {"event_type_id": kind, "start_at": start_at, "seats": seats, "ttl_seconds": ttl}
        if made := await self.ask("/holds", body):
            self.held.append((made["id"], kind, start_at, seats))

    async def convert(self) -> None:
        if self.held:
            hold_id, kind, start_at, seats = self.rng.choice(self.held)
            await self.ask("/bookings", booking(kind, start_at, seats=seats, hold_id=hold_id))

    async def reschedule(self) -> None:
        await self.act("reschedule", {"start_at": self.rng.choice(SLOTS)})

    async def reassign(self) -> None:
        """More often of a team than of one alone, for there somebody stays."""
        several = [one for one, hosts in self.booked.items() if len(hosts) > 1 and one not in self.ended]
        if some := several if several and self.rng.random() < 0.7 else list(self.booked):
            hosts = self.booked[one := self.rng.choice(some)]
            other = self.rng.choice([host for host in self.hosts if host not in hosts])
            await self.ask(f"/bookings/{one}/reassign", {"host_id": other, "from_host_id": self.rng.choice(hosts)})

    async def cancel(self) -> None:
        await self.act("cancel", {})

    async def approve(self) -> None:
        await self.act("approve", {})

    async def decline(self) -> None:
        await self.act("decline", {})

    async def act(self, action: str, body: dict[str, Any]) -> None:
        if self.booked:
            await self.ask(f"/bookings/{self.rng.choice(list(self.booked))}/{action}", body)


async def kill_at_random(stack: Stack, storm: Storm, rng: random.Random) -> None:
    for n in range(KILLS):
        due = STEPS * (n + 1) // (KILLS + 2)
        await until(lambda due=due: storm.reached(due), 180, f"step {due}")
        victim = rng.choice(VICTIMS)
        await until(storm.in_flight, 60, "a command in flight")
        await asyncio.to_thread(stack.wait_restarted, victim, stack.kill(victim))
    storm.over = True


async def arena(api: Client) -> tuple[dict[str, str], list[str]]:
    """Five hosts, and what is booked with them: a group, one alone within a limit, and two in one of two rooms."""
    schedule = await api.ok("POST", "/schedules", ALWAYS)
    hosts = [
        (await api.ok("POST", "/hosts", {"name": f"Host {n}", "schedule_id": schedule["id"], "timezone": "UTC"}))["id"]
        for n in range(HOSTS)
    ]
    room = await api.ok("POST", "/resources", {"name": "Room", "quantity": 2})
    kinds = {
        "group": {"assignment": "round_robin", "capacity": CAPACITY, "requires_confirmation": True},
        "single": {"assignment": "any", "limits": [{"count": A_DAY, "per": "day"}]},
        "team": {
            "assignment": "any",
            "required_hosts": 2,
            "resource_ids": [room["id"]],
            "buffer_before_minutes": 10,
        },
    }
    several = [{"host_id": one} for one in hosts]
    return {name: await api.event_type("", hosts=several, **settings) for name, settings in kinds.items()}, hosts


@pytest.mark.timeout(1200)
async def test_a_storm_over_few_slots_breaks_no_rule(stack: Stack, api: Client) -> None:
    rng = random.Random(20260410)
    kinds, hosts = await arena(api)
    storm, judge = Storm(api, kinds, hosts, rng), Judge(stack.database)
    running = asyncio.create_task(storm.run(STEPS))
    killing = asyncio.create_task(kill_at_random(stack, storm, rng))
    # Whichever fails first is what is told.
    await asyncio.wait_for(asyncio.gather(running, killing), 900)

    for answer in storm.answers:
        name, _, outcome = answer.partition(" ")
        assert outcome in {"200", "201"} | REFUSALS[name], storm.answers
    for name in ("bookings 201", "holds 201", "reschedule 200", "reassign 200", "cancel 200", "approve 200"):
        assert storm.answers[name], storm.answers
    assert await judge.fetch(UNHEARD_OF, *map(list, zip(*storm.said, strict=True))) == []
    # Holds that have run out stand until their timers have fired, which also a killed service owes.
    await until(lambda: expired(judge), 120, "the timers of holds that ran out")
    assert await findings(judge, kinds["single"], A_DAY) == {}
    await judge.close()
    assert "deadlock detected" not in (stack.folder / "logs" / "postgres.log").read_text(errors="replace")


# The last event of a stream again, so many versions later, with members of its state replaced.
FORGE: Final = """
INSERT INTO booking.events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor, data, state)
SELECT tenant_id, stream_id, version + $2, tx, id || '-forged', type, schema_version, occurred_at, actor, data,
    (state::jsonb || $3::jsonb)::json
FROM booking.events WHERE stream_id = $1 ORDER BY version DESC LIMIT 1
"""


async def expired(judge: Judge) -> bool:
    return not await judge.fetch(EXPIRING)


@pytest.mark.timeout(1200)
async def test_the_auditor_finds_what_is_broken(stack: Stack, api: Client) -> None:
    """Each rule is broken on purpose, in a transaction that is rolled back."""
    kinds, _ = await arena(api)
    day = [slot(n, days_ahead=9) for n in range(4)]

    async def made(kind: str, at: str, **more: Any) -> Any:
        return (await api.persist("/bookings", booking(kinds[kind], at, **more))).json()

    group, single, team = [
        await made("group", day[0], seats=2),
        await made("single", day[1]),
        await made("team", day[3]),
    ]
    held = (await api.persist("/holds", {"event_type_id": kinds["single"], "start_at": day[2]})).json()
    host, room = single["host_ids"][0], "res_%"
    there = {"host_ids": [host], "start_at": single["start_at"], "end_at": single["end_at"]}
    breakages: list[tuple[str, str, tuple[Any, ...]]] = [
        ("overlap", FORGE, (held["id"], 1, json.dumps(there))),
        ("overlap", FORGE, (team["id"], 1, json.dumps(there))),
        # Half an hour after it there is only a buffer in the way.
        (
            "overlap",
            FORGE,
            (single["id"], 1, json.dumps({"host_ids": team["host_ids"], "start_at": day[2], "end_at": day[3]})),
        ),
        ("over capacity", FORGE, (group["id"], 1, json.dumps({"seats": CAPACITY + 1}))),
        ("unreserved", FORGE, (single["id"], 1, json.dumps({"start_at": day[0]}))),
        (
            "unreserved",
            "DELETE FROM booking.reservations WHERE subject_id = $1 AND start_at = $2::text::timestamptz",
            (host, day[1]),
        ),
        (
            "unreserved",
            "DELETE FROM booking.reservations WHERE subject_id LIKE $1 AND start_at = $2::text::timestamptz",
            (room, day[3]),
        ),
        (
            "unreserved",
            "UPDATE booking.reservations SET during = tstzrange(start_at, end_at) WHERE start_at = $1::text::timestamptz",
            (day[3],),
        ),
        ("unseated", "DELETE FROM booking.seats WHERE holder_id = $1", (held["id"],)),
        ("unseated", "UPDATE booking.seats SET in_force = false WHERE holder_id = $1", (group["id"],)),
        ("unseated", "UPDATE booking.seats SET seats = 1 WHERE holder_id = $1", (group["id"],)),
        ("reserved for nobody", FORGE, (single["id"], 1, json.dumps({"status": "cancelled"}))),
        ("reserved for nobody", FORGE, (held["id"], 1, json.dumps({"expires_at": "2026-01-01T00:00:00Z"}))),
        ("seated for nothing", FORGE, (team["id"], 1, json.dumps({"status": "declined"}))),
        ("read otherwise", "DELETE FROM booking.holds WHERE id = $1", (held["id"],)),
        ("read otherwise", FORGE, (single["id"], 1, json.dumps({"metadata": {"a": 1}}))),
        ("torn", FORGE, (single["id"], 2, "{}")),
        ("over limit", FORGE, (group["id"], 1, json.dumps({"event_type_id": kinds["single"], "host_ids": [host]}))),
    ]
    judge = Judge(stack.database)
    assert await findings(judge, kinds["single"], 1) == {}
    for rule, sql, args in breakages:
        async with judge.undone() as conn:
            assert await conn.execute(sql, *args) not in {"DELETE 0", "UPDATE 0", "INSERT 0 0"}, (rule, sql)
            assert rule in await findings(judge, kinds["single"], 1), (rule, sql)
    known = (group["id"], group["version"], group["status"], datetime.fromisoformat(group["start_at"]))
    assert await judge.fetch(UNHEARD_OF, *([one] for one in known)) == []
    for n, other in enumerate(("bkg_none", 2, "confirmed", datetime.fromisoformat(day[1]))):
        answered = [[other if n == m else one] for m, one in enumerate(known)]
        assert len(await judge.fetch(UNHEARD_OF, *answered)) == 1
    await judge.close()
