"""What an operator sees: health, drains, and the loss of what the gateway stands on."""

import asyncio
import subprocess
import sys

import httpx
from gateway_kit import Serve, Start, Under, bootstrap, problem

from kalends_shared.contracts.call import Call, Reply
from kalends_shared.servers import Nats, Postgres
from kalends_shared.testkit.waiting import eventually_async


async def test_sigterm_ends_what_is_in_flight_and_exits(
    own_environment: dict[str, str], start: Start, under: Under, serve: Serve
) -> None:
    ending = asyncio.Event()

    async def slow(_: Call) -> Reply:
        await ending.wait()
        return Reply(body=b'"done"')

    calls = await serve("booking", get_booking=slow)
    secret = (await bootstrap(own_environment))["api_key"]
    gateway = await start()
    asked = [asyncio.create_task(under(gateway, secret)("GET", "/bookings/bkg_1")) for _ in range(10)]

    async def in_flight() -> bool:
        return len(calls) == 10

    await eventually_async(in_flight)
    gateway.process.terminate()

    async def told() -> bool:
        return not await gateway.ready()

    await eventually_async(told)
    ending.set()
    assert await gateway.end() == 0
    assert {(await one).content for one in asked} == {b'"done"'}


async def test_a_draining_gateway_is_not_ready_but_serves(
    own_environment: dict[str, str], start: Start, under: Under
) -> None:
    secret = (await bootstrap(own_environment))["api_key"]
    gateway = await start(more={"KALENDS_DRAIN_SECONDS": "60"})
    api = under(gateway, secret)
    async with httpx.AsyncClient(timeout=60) as http:
        assert (await http.get(gateway.ops + "/health/live")).status_code == 200
        assert (await http.get(gateway.ops + "/health/ready")).json() == {"ok": True, "problems": {}}
        gateway.process.terminate()

        async def draining() -> bool:
            return not await gateway.ready()

        await eventually_async(draining)
        assert (await http.get(gateway.ops + "/health/ready")).json()["problems"] == {"drain": "draining"}
        assert (await api("GET", "/me")).status_code == 200
    gateway.process.kill()


async def test_without_postgres_it_is_not_ready_and_says_503_and_comes_back(
    own_pg: Postgres, own_environment: dict[str, str], start: Start, under: Under
) -> None:
    from kalends_gateway.schema import SCHEMA
    from kalends_shared import migrations

    await migrations.migrate(own_pg.url, [SCHEMA])
    own_environment["KALENDS_DATABASE_URL"] = own_pg.url
    secret = (await bootstrap(own_environment))["api_key"]
    gateway = await start()
    api = under(gateway, secret)
    assert (await api("GET", "/me")).status_code == 200
    await asyncio.to_thread(own_pg.kill)

    async def refused() -> bool:
        return (await api("GET", "/me")).status_code == 503

    async def not_ready() -> bool:
        return not await gateway.ready()

    await eventually_async(refused)
    problem(await api("GET", "/me"), 503, "unavailable")
    await eventually_async(not_ready)
    await asyncio.to_thread(own_pg.start)

    async def back() -> bool:
        return (await api("GET", "/me")).status_code == 200 and await gateway.ready()

    await eventually_async(back)


async def test_without_nats_it_answers_what_it_can_and_comes_back(
    own_nats: Nats, own_environment: dict[str, str], start: Start, under: Under
) -> None:
    own_environment["KALENDS_NATS_URL"] = own_nats.url
    secret = (await bootstrap(own_environment))["api_key"]
    gateway = await start(more={"KALENDS_REQUEST_SECONDS": "8", "KALENDS_KEY_LEASE_SECONDS": "1"})
    api = under(gateway, secret)
    await asyncio.to_thread(own_nats.kill)
    assert (await api("GET", "/me")).status_code == 200
    problem(await api("GET", "/hosts"), 503, "unavailable")

    async def not_ready() -> bool:
        return not await gateway.ready()

    await eventually_async(not_ready)
    made = await api.made("/api-keys", {"name": "x"})
    assert (await api("DELETE", f"/api-keys/{made['id']}")).status_code == 204, "by the lease"
    await asyncio.to_thread(own_nats.start)
    await eventually_async(gateway.ready)


def test_wrong_settings_are_told_and_nothing_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kalends_gateway"],
        env={"KALENDS_HTTP_PORT": "99999"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "KALENDS_HTTP_PORT" in done.stderr
    assert "KALENDS_DATABASE_URL is required" in done.stderr


async def test_a_schema_that_is_too_old_is_not_served_on(pg_url: str, own_environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kalends_gateway",
        env=own_environment | {"KALENDS_DATABASE_URL": pg_url},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"kalends migrate" in told or b"does not exist" in told
