"""Idempotency-Key where processes die: what was committed and never answered is answered to the retry, and done once."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import httpx
from harness.client import Client, booking, slot, until
from harness.judge import Judge
from harness.stack import SERVICES, Stack

GATE: Final = 6_172_018
# The commit of whatever stores an answer under one of these keys waits for the gate.
HOLD: Final = """
CREATE FUNCTION {schema}.hold_commit() RETURNS trigger LANGUAGE plpgsql
SET lock_timeout = 0 SET transaction_timeout = 0 AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({gate});
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT ON {schema}.idempotency DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.key LIKE 'held-%') EXECUTE FUNCTION {schema}.hold_commit();
"""
LET_GO: Final = "DROP FUNCTION {schema}.hold_commit() CASCADE"
WAITING: Final = """
SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.objid = $1 AND NOT l.granted AND a.application_name LIKE 'kalends-%'
"""
TOGETHER: Final = 20


@asynccontextmanager
async def commits_held(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Holds the gate; whoever releases it lets the commits happen."""
    conn = await asyncpg.connect(url)
    try:
        await conn.execute("SELECT pg_advisory_lock($1)", GATE)
        for schema in SERVICES:
            await conn.execute(HOLD.format(schema=schema, gate=GATE))
        yield conn
    finally:
        await conn.execute("SELECT pg_advisory_unlock_all()")
        for schema in SERVICES:
            await conn.execute(LET_GO.format(schema=schema))
        await conn.close()


async def test_what_was_committed_by_a_process_that_died_is_answered_to_the_retry(stack: Stack, api: Client) -> None:
    """Of each service the process that has sent its commit is frozen, the commit then let happen, and the process killed."""
    host, name = await api.host(), uuid.uuid4().hex
    kind = await api.event_type(host)
    # In this order: what is frozen is not needed by those after it.
    posts: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "webhooks": ("/webhooks", hook(name), {}),
        "booking": ("/bookings", booking(kind, slot(30), booker_name=name), {"event_type_id": kind}),
        "calendar_sync": (
            "/events",
            {"host_id": host, "title": name, "start_at": slot(40), "end_at": slot(41)},
            {"host_id": host},
        ),
        "availability": ("/hosts", {"name": name}, {}),
        "gateway": ("/api-keys", {"name": name}, {}),
    }
    assert posts.keys() == set(SERVICES)
    judge, key, frozen, lost = Judge(stack.database), f"held-{name}", dict[str, int](), []
    async with commits_held(stack.database) as gate:
        for path, body, _ in posts.values():
            lost.append(asyncio.create_task(api.call("POST", path, body, key=key)))

            async def caught() -> bool:
                found = {row[0].removeprefix("kalends-") for row in await judge.fetch(WAITING, GATE)}
                frozen.update({one: stack.freeze(one) for one in found - frozen.keys()})
                return len(frozen) == len(lost)

            await until(caught, 180, f"a process that commits POST {path}")
        await gate.execute("SELECT pg_advisory_unlock($1)", GATE)

        async def committed() -> bool:
            counts = [
                await judge.value(f"SELECT count(*) FROM {one}.idempotency WHERE key = $1", key) for one in SERVICES
            ]
            return counts == [1] * len(SERVICES)

        await until(committed, 180, "all five commits")
    for one, pid in frozen.items():
        assert stack.kill(one) == pid
    for task in lost:
        task.cancel()
    await asyncio.gather(*lost, return_exceptions=True)

    answers = {path: await api.persist(path, body, key=key) for path, body, _ in posts.values()}
    for one, pid in frozen.items():
        await asyncio.to_thread(stack.wait_restarted, one, pid)
    await until(lambda: every_gateway_answers(api), 180, "a gateway that answers again")
    for path, _, filters in posts.values():
        answer = answers[path]
        assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (201, "true"), (path, answer.text)
        assert answer.json().get("secret") is None
        page = await api.ok("GET", path, params=filters | {"limit": 100})
        assert [row["id"] for row in page["data"] if name in row.values()] == [answer.json()["id"]], path
    await judge.close()


def hook(description: str) -> dict[str, Any]:
    return {"url": "https://127.0.0.1:2443/h", "events": ["*"], "description": description, "enabled": False}


async def every_gateway_answers(api: Client) -> bool:
    try:
        return all([(await api.http.get(f"{url}/api/v1/me")).is_success for url in api.urls])
    except httpx.TransportError:
        return False


async def test_twenty_at_once_by_two_gateways_have_one_effect_while_a_replica_dies(stack: Stack, api: Client) -> None:
    kind, name = await api.event_type(), uuid.uuid4().hex
    made = (await api.book(kind, slot(20))).json()["id"]
    posts: dict[str, tuple[str, dict[str, Any]]] = {
        "booking": ("/bookings", booking(kind, slot(21))),
        "series": ("/bookings", booking(kind, slot(22), recurrence={"rrule": "FREQ=DAILY;COUNT=3"})),
        "hold": ("/holds", {"event_type_id": kind, "start_at": slot(23)}),
        "cancel": (f"/bookings/{made}/cancel", {}),
        "webhook": ("/webhooks", hook(name)),
        "key": ("/api-keys", {"name": name}),
    }

    answered = asyncio.Event()

    async def one_of_them(path: str, body: dict[str, Any], key: str) -> httpx.Response:
        answer = await api.persist(path, body, key=key)
        answered.set()
        return answer

    async def at_once(path: str, body: dict[str, Any]) -> list[httpx.Response]:
        key = str(uuid.uuid4())
        return await asyncio.gather(*(one_of_them(path, body, key) for _ in range(TOGETHER)))

    running = {one: asyncio.create_task(at_once(*post)) for one, post in posts.items()}
    await answered.wait()
    dead = stack.freeze("booking")

    async def stuck() -> bool:
        return api.stuck(0.3) > 0 or all(task.done() for task in running.values())

    await until(stuck, 180, "a command that waits for the replica")
    assert stack.kill("booking") == dead
    for one, task in running.items():
        answers = await task
        assert {answer.status_code for answer in answers} <= {200, 201}, (one, {a.text for a in answers})
        told = [answer.json() for answer in answers]
        secrets = [body.pop("secret", None) for body in told]
        assert all(body == told[0] for body in told), one
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) <= 1, one
        assert sum(secret is not None for secret in secrets) <= 1, one
    booked = (await api.ok("GET", "/bookings", params={"event_type_id": kind}))["data"]
    assert len(booked) == 1 + 1 + 3
    assert sum(row["event_type_id"] == kind for row in (await api.ok("GET", "/holds"))["data"]) == 1
    history = (await api.ok("GET", f"/bookings/{made}/history"))["data"]
    assert [entry["type"] for entry in history].count("booking.cancelled") == 1
    for path in ("/webhooks", "/api-keys"):
        page = await api.ok("GET", path, params={"limit": 100})
        assert sum(name in row.values() for row in page["data"]) == 1, path
    await asyncio.to_thread(stack.wait_restarted, "booking", dead)
