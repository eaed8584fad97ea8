"""Several gateways: a revocation holds at all of them when it is answered, whatever happens to one of them."""

import asyncio
import os
import signal
import time

import asyncpg
from gateway_kit import Api, Start, Under, bootstrap, problem
from prometheus_client import REGISTRY

from kalends_gateway.identity import Identities
from kalends_shared.db import Database
from kalends_shared.testkit.waiting import eventually_async


async def use(apis: list[Api], seconds: float) -> None:
    """Keeps a key in every gateway's memory."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.gather(*[api("GET", "/me") for api in apis])


async def test_revoked_and_rolled_at_once_everywhere(
    own_environment: dict[str, str], start: Start, under: Under
) -> None:
    secret = (await bootstrap(own_environment))["api_key"]
    gateways = await asyncio.gather(*[start(f"gateway-{n}") for n in range(3)])
    admins = [under(gateway, secret) for gateway in gateways]
    for round_ in range(12):
        admin = admins[round_ % 3]
        made = await admin.made("/api-keys", {"name": "x", "rate_limits": {"per_minute": 100_000, "per_hour": 100_000}})
        everywhere = [under(gateway, made["secret"]) for gateway in gateways]
        await use(everywhere, 0.05)
        if round_ % 2:
            assert (await admin("DELETE", f"/api-keys/{made['id']}")).status_code == 204
        else:
            rolled = (await admin("POST", f"/api-keys/{made['id']}/roll")).json()
            answers = await asyncio.gather(*[under(gateway, rolled["secret"])("GET", "/me") for gateway in gateways])
            assert {a.status_code for a in answers} == {200}, "the new one at once too"
        for answer in await asyncio.gather(*[api("GET", "/me") for api in everywhere]):
            problem(answer, 401, "unauthenticated")
    assert sum([await gateway.metric("kalends_gateway_forget_by_lease_total") for gateway in gateways]) == 0


async def test_under_fire_no_request_begun_after_the_answer_gets_through(
    own_environment: dict[str, str], start: Start, under: Under
) -> None:
    """Requests hammer both gateways while the key goes: the loads that overlap the revocation must not bring it back."""
    secret = (await bootstrap(own_environment))["api_key"]
    gateways = await asyncio.gather(*[start(f"gateway-{n}") for n in range(2)])
    admin = under(gateways[0], secret)
    limits = {"per_minute": 1_000_000, "per_hour": 1_000_000}
    for _ in range(8):
        made = await admin.made("/api-keys", {"name": "x", "rate_limits": limits})
        late: list[int] = []
        gone = asyncio.Event()
        ended = asyncio.Event()

        async def hammer(
            api: Api, gone: asyncio.Event = gone, ended: asyncio.Event = ended, late: list[int] = late
        ) -> None:
            while not ended.is_set():
                after = gone.is_set()
                answer = await api("GET", "/me")
                if after:
                    late.append(answer.status_code)

        async def heard(late: list[int] = late) -> bool:
            return len(late) >= 20

        tasks = [asyncio.create_task(hammer(under(gateway, made["secret"]))) for gateway in gateways for _ in range(4)]
        await asyncio.sleep(0.1)
        await admin("DELETE", f"/api-keys/{made['id']}")
        gone.set()
        await eventually_async(heard)
        ended.set()
        await asyncio.gather(*tasks)
        assert set(late) == {401}


async def test_a_gateway_that_hears_nothing_is_waited_out(
    own_environment: dict[str, str], start: Start, under: Under
) -> None:
    """One is stopped where it stands: it acknowledges nothing, and when it goes on its memory holds no longer."""
    secret = (await bootstrap(own_environment))["api_key"]
    lease = {"KALENDS_KEY_LEASE_SECONDS": "1"}
    one, other = await asyncio.gather(start("gateway-1", lease), start("gateway-2", lease))
    admin = under(one, secret)
    made = await admin.made("/api-keys", {"name": "x"})
    there = under(other, made["secret"])
    assert (await there("GET", "/me")).status_code == 200
    os.kill(other.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert (await admin("DELETE", f"/api-keys/{made['id']}")).status_code == 204
    took = time.monotonic() - began
    os.kill(other.process.pid, signal.SIGCONT)
    problem(await there("GET", "/me"), 401, "unauthenticated")
    assert took > 1
    assert await one.metric("kalends_gateway_forget_by_lease_total") == 1


async def test_a_gateway_that_left_is_not_waited_for(
    own_environment: dict[str, str], start: Start, under: Under
) -> None:
    secret = (await bootstrap(own_environment))["api_key"]
    one, other = await asyncio.gather(start("gateway-1"), start("gateway-2"))
    assert await other.end() == 0
    admin = under(one, secret)
    made = await admin.made("/api-keys", {"name": "x"})
    await admin("DELETE", f"/api-keys/{made['id']}")
    assert await one.metric("kalends_gateway_forget_by_lease_total") == 0
    conn = await asyncpg.connect(own_environment["KALENDS_DATABASE_URL"])
    assert await conn.fetchval("SELECT count(*) FROM gateway.replicas") == 1
    await conn.close()


async def test_a_key_in_use_waits_for_no_database(own_environment: dict[str, str]) -> None:
    secret = (await bootstrap(own_environment))["api_key"]
    db = await Database.connect(own_environment["KALENDS_DATABASE_URL"], "gateway")
    identities, stop, now = Identities(db.pool, lease=10), asyncio.Event(), 1000.0
    identities._time = lambda: now
    refreshing = asyncio.create_task(identities.refresh(stop))

    async def asked_after() -> bool:
        return [entry.until for entry in identities._entries.values()] == [now + 10]

    before = REGISTRY.get_sample_value("kalends_gateway_key_lookups_total") or 0
    for _ in range(4):
        assert await identities.find(secret) is not None
        now += 8
        await eventually_async(asked_after)
    assert REGISTRY.get_sample_value("kalends_gateway_key_lookups_total") == before + 1
    stop.set()
    await refreshing
    await db.close()


async def test_a_key_that_was_made_elsewhere_works_at_once(
    own_environment: dict[str, str], start: Start, under: Under
) -> None:
    secret = (await bootstrap(own_environment))["api_key"]
    one, other = await asyncio.gather(start("gateway-1"), start("gateway-2"))
    for _ in range(10):
        made = await under(one, secret).made("/api-keys", {"name": "x"})
        assert (await under(other, made["secret"])("GET", "/me")).status_code == 200

    async def shown() -> bool:
        return (await under(one, secret)("GET", f"/api-keys/{made['id']}")).json()["last_used_at"] is not None

    await eventually_async(shown)
