"""Everybody wants the same twenty slots, by every command there is, while services die: then an auditor reads the tables."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from harness.auditor import EXPIRING, UNHEARD_OF, UNTOLD, findings
from harness.client import Client, booking, slot, until
from harness.judge import Judge
from harness.stack import Stack
from harness.storm import A_BOOKER, A_DAY, CAPACITY, Storm, arena

from kalends_shared.testkit import scale

STEPS: Final = scale.count(reduced=280, full=2_000)
STEPS_OF_A_CLOCK: Final = scale.count(reduced=140, full=1_000)
KILLS: Final = scale.count(reduced=3, full=8)
KILLS_OF_A_CLOCK: Final = scale.count(reduced=1, full=4)
LEAST: Final = scale.count(reduced=2, full=8)
SLOTS: Final = [slot(n, days_ahead=5) for n in range(20)]
VICTIMS: Final = ("booking", "booking-2", "availability", "availability-2", "gateway", "gateway-2")


async def kill_at_random(stack: Stack, storm: Storm, rng: random.Random, steps: int, kills: int) -> None:
    for n in range(kills):
        due = steps * (n + 1) // (kills + 2)
        await until(lambda due=due: storm.reached(due), 180, f"step {due}")
        victim = rng.choice(VICTIMS)
        await until(storm.in_flight, 180, "a command in flight")
        await asyncio.to_thread(stack.wait_restarted, victim, stack.kill(victim))
    await until(storm.served, 120, "every gateway serves")
    storm.over = True


async def hold_to_the_rules(stack: Stack, storm: Storm, rng: random.Random, steps: int, kills: int) -> None:
    """Runs the storm among kills; then what was answered and what the tables say must agree, and break no rule."""
    account = await storm.api.ok("GET", "/profile")
    running = asyncio.create_task(storm.run(steps, LEAST))
    killing = asyncio.create_task(kill_at_random(stack, storm, rng, steps, kills))
    # Whichever fails first is what is told.
    await asyncio.wait_for(asyncio.gather(running, killing), 900)
    print(f"{storm.steps} steps, {len(storm.booked)} bookings: done {dict(storm.done)}, refused {dict(storm.refused)}")
    assert storm.lacking(LEAST) == [], (storm.done, storm.refused)

    judge = Judge(stack.database)
    told = list(map(list, zip(*storm.said, strict=True)))
    assert await judge.fetch(UNHEARD_OF, *told) == []
    assert await judge.fetch(UNTOLD, *told[:2], list(storm.kinds.values())) == []
    tenant, now = f"{account['id']}-{account['mode']}", storm.now or datetime.now(UTC)

    async def expired() -> bool:
        if storm.now is not None:
            # A command stamped before a move of the clock may have committed after it: what it set goes with the next move.
            await storm.api.ok("POST", "/test-clock", {"freeze_at": storm.now.isoformat()})
        return not await judge.fetch(EXPIRING, tenant, now)

    # Holds that have run out stand until their timers have fired, which also a killed service owes.
    await until(expired, 120, "the timers of holds that ran out")
    limits = {"a_day": {storm.kinds["single"]: A_DAY}, "a_booker": {storm.kinds["paid"]: A_BOOKER}}
    assert await findings(judge, tenant, storm.now or datetime.now(UTC), **limits) == {}
    await judge.close()
    assert "deadlock detected" not in (stack.folder / "logs" / "postgres.log").read_text(errors="replace")


@pytest.mark.timeout(1200)
async def test_a_storm_over_few_slots_breaks_no_rule(stack: Stack, api: Client) -> None:
    rng = random.Random(20260410)
    storm = Storm(api, *await arena(api), SLOTS, rng)
    await hold_to_the_rules(stack, storm, rng, STEPS, KILLS)


@pytest.mark.timeout(1200)
async def test_a_storm_while_a_test_clock_moves_breaks_no_rule(stack: Stack, api: Client) -> None:
    """Bookings begin and end meanwhile, so that what takes one that has begun is done too."""
    rng = random.Random(20260411)
    rates = {"per_minute": 1_000_000, "per_hour": 1_000_000}
    key = {"name": "storm", "mode": "test", "scopes": ["write"], "rate_limits": rates}
    made = await api.ok("POST", "/api-keys", key)
    begin, end = (datetime.fromisoformat(SLOTS[n]) for n in (0, -1))
    async with Client(stack.urls, made["secret"]) as test:
        clock = await test.ok("POST", "/test-clock", {"freeze_at": (begin - timedelta(minutes=30)).isoformat()})
        try:
            storm = Storm(test, *await arena(test), SLOTS, rng, (datetime.fromisoformat(clock["now"]), end))
            await hold_to_the_rules(stack, storm, rng, STEPS_OF_A_CLOCK, KILLS_OF_A_CLOCK)
        finally:
            await test.ok("POST", "/test-clock", {"release": True})


# The last event of a stream again, so many versions later, with members of its state replaced.
FORGE: Final = """
INSERT INTO booking.events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor, data, state)
SELECT tenant_id, stream_id, version + $2, tx, id || '-forged', type, schema_version, occurred_at, actor, data,
    (state::jsonb || $3::jsonb)::json
FROM booking.events WHERE stream_id = $1 ORDER BY version DESC LIMIT 1
"""


@pytest.mark.timeout(1200)
async def test_the_auditor_finds_what_is_broken(stack: Stack, api: Client) -> None:
    """Each rule is broken on purpose, in a transaction that is rolled back."""
    kinds, _ = await arena(api)
    day = [slot(n, days_ahead=9) for n in range(4)]

    async def made(kind: str, at: str, **more: Any) -> Any:
        return (await api.persist("/bookings", booking(kinds[kind], at, **more))).json()

    group, single, team, paid = [
        await made("group", day[0], seats=2),
        await made("single", day[1]),
        await made("team", day[3]),
        await made("paid", day[2]),
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
        ("over booker", FORGE, (single["id"], 1, json.dumps({"event_type_id": kinds["paid"]}))),
        ("over limit", FORGE, (group["id"], 1, json.dumps({"event_type_id": kinds["single"], "host_ids": [host]}))),
    ]
    judge = Judge(stack.database)
    tenant, now = f"{(await api.ok('GET', '/profile'))['id']}-live", datetime.now(UTC)
    limits = {"a_day": {kinds["single"]: 1}, "a_booker": {kinds["paid"]: 1}}
    assert await findings(judge, tenant, now, **limits) == {}
    for rule, sql, args in breakages:
        async with judge.undone() as conn:
            assert await conn.execute(sql, *args) not in {"DELETE 0", "UPDATE 0", "INSERT 0 0"}, (rule, sql)
            assert rule in await findings(judge, tenant, now, **limits), (rule, sql)
    known = (group["id"], group["version"], group["status"], datetime.fromisoformat(group["start_at"]))
    assert await judge.fetch(UNHEARD_OF, *([one] for one in known)) == []
    for n, other in enumerate(("bkg_none", 2, "confirmed", datetime.fromisoformat(day[1]))):
        answered = [[other if n == m else one] for m, one in enumerate(known)]
        assert len(await judge.fetch(UNHEARD_OF, *answered)) == 1
    told = [(one["id"], one["version"]) for one in (group, single, team, paid, held)]
    for missed in (None, *told):
        answered = list(zip(*(one for one in told if one != missed), strict=True))
        rows = await judge.fetch(UNTOLD, *map(list, answered), list(kinds.values()))
        assert [(row["stream_id"], row["version"]) for row in rows] == ([missed] if missed else [])
    await judge.close()
