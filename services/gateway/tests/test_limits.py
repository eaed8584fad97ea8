"""Rate limits, counted by a real Valkey."""

import asyncio
import re

from gateway_kit import Keyed, Running, Start, Under, bootstrap, problem

from kalends_shared.servers import Valkey
from kalends_shared.testkit.waiting import eventually_async


async def test_every_answer_of_a_limited_key_tells_of_its_limits(keyed: Keyed) -> None:
    key = await keyed("write", rate_limits=None)
    answers = [
        await key("GET", "/me"), await key("GET", "/nowhere"), await key("PUT", "/me"), await key("POST", "/bookings", {}), await key("GET", "/api-keys"),
        await key("GET", "/me?x=1"), await key("POST", "/api-keys", {}), await key("GET", "/me", headers={"Kalends-Account": "acc_x"}),
    ]  # fmt: skip
    assert [a.status_code for a in answers] == [200, 404, 405, 400, 403, 422, 403, 403]
    for n, answer in enumerate(answers, 1):
        assert answer.headers["x-ratelimit-limit"] == "100"
        assert answer.headers["x-ratelimit-remaining"] == str(100 - n)
        assert 1 <= int(answer.headers["x-ratelimit-reset"]) <= 60
        assert re.findall(r"q=(\d+);\s*w=(\d+)", answer.headers["ratelimit-policy"]) == [
            ("100", "60"),
            ("1000", "3600"),
        ]
        assert f"r={100 - n};" in answer.headers["ratelimit"]


async def test_the_headers_tell_of_the_window_with_the_smallest_fraction_left(keyed: Keyed) -> None:
    key = await keyed("read", rate_limits={"per_minute": 50, "per_hour": 8})
    await key("GET", "/me")
    headers = (await key("GET", "/me")).headers
    assert [headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining")] == ["8", "6"]
    assert int(headers["x-ratelimit-reset"]) > 3500


async def test_over_the_limit_is_429_and_counts_no_more(keyed: Keyed) -> None:
    key, other = await keyed("read", rate_limits={"per_minute": 5, "per_hour": 100}), await keyed("read")
    answers = await asyncio.gather(*[key("GET", "/me") for _ in range(20)])
    assert sorted(a.status_code for a in answers) == [200] * 5 + [429] * 15
    over = next(a for a in answers if a.status_code == 429)
    problem(over, 429, "rate_limited")
    assert 1 <= int(over.headers["retry-after"]) <= 60
    assert (over.headers["x-ratelimit-remaining"], over.headers["x-ratelimit-limit"]) == ("0", "5")
    assert (await other("GET", "/me")).status_code == 200


async def test_a_rolled_key_keeps_its_count(gateway: Running, keyed: Keyed, under: Under) -> None:
    admin = await keyed("admin")
    made = await admin.made("/api-keys", {"name": "x", "rate_limits": {"per_minute": 3}})
    for _ in range(3):
        await under(gateway, made["secret"])("GET", "/me")
    rolled = (await admin("POST", f"/api-keys/{made['id']}/roll")).json()
    problem(await under(gateway, rolled["secret"])("GET", "/me"), 429, "rate_limited")


async def test_without_redis_it_serves_on_and_says_so(
    own_redis: Valkey, own_environment: dict[str, str], start: Start, under: Under
) -> None:
    gateway = await start(more={"KALENDS_REDIS_URL": own_redis.url, "KALENDS_RATE_LIMIT_SECONDS": "5"})
    admin = under(gateway, (await bootstrap(own_environment))["api_key"])
    key = under(gateway, (await admin.made("/api-keys", {"name": "x", "rate_limits": {"per_minute": 2}}))["secret"])
    assert [(await key("GET", "/me")).status_code for _ in range(3)] == [200, 200, 429]
    await asyncio.to_thread(own_redis.kill)
    for _ in range(5):
        answer = await key("GET", "/me")
        assert answer.status_code == 200
        assert not [name for name in answer.headers if "ratelimit" in name]
    assert await gateway.metric("kalends_gateway_rate_limit_unavailable_total") == 5
    assert await gateway.ready(), "Redis may be lost"
    await asyncio.to_thread(own_redis.start)

    async def counted_again() -> bool:
        return "x-ratelimit-limit" in (await key("GET", "/me")).headers

    await eventually_async(counted_again)
