"""Rate limits: two fixed windows a key, counted in Redis by one call, which counts only what it lets through.

A window begins with its first request. While Redis is away everything is let through, and a metric says so.
"""

import asyncio
from typing import Final

from msgspec import Struct
from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from kalends_gateway.domain.keys import Limits
from kalends_shared import telemetry

SCRIPT: Final = """
local most = {tonumber(ARGV[1]), tonumber(ARGV[2])}
local long = {60000, 3600000}
local count, left, open = {}, {}, 1
for i = 1, 2 do
    count[i] = tonumber(redis.call('GET', KEYS[i]) or '0')
    left[i] = redis.call('PTTL', KEYS[i])
    if left[i] < 0 then count[i] = 0; left[i] = long[i] end
    if most[i] > 0 and count[i] >= most[i] then open = 0 end
end
if open == 1 then
    for i = 1, 2 do
        count[i] = count[i] + 1
        if count[i] == 1 then redis.call('SET', KEYS[i], 1, 'PX', long[i]) else redis.call('INCR', KEYS[i]) end
    end
end
return {open, count[1], left[1], count[2], left[2]}
"""
WINDOWS: Final = (60, 3600)
PAUSE_SECONDS: Final = 1.0  # after a failure, before Redis is tried again

UNLIMITED: Final = Counter("kalends_gateway_rate_limit_unavailable_total", "Requests let through as Redis was away.")
REFUSED: Final = Counter("kalends_gateway_rate_limited_total", "Requests over their key's limit.")


class Verdict(Struct, frozen=True):
    """What counting said: whether to serve it, the headers that tell of it, and seconds until another may pass."""

    open: bool
    headers: tuple[tuple[bytes, bytes], ...]
    retry_after: int = 0


class RateLimits:
    """Counts requests against their keys' limits."""

    def __init__(self, redis: "Redis", seconds: float) -> None:
        """`seconds` is how long counting may take."""
        self._seconds = seconds
        self._script = redis.register_script(SCRIPT)
        self._time = asyncio.get_running_loop().time
        self._again = 0.0

    async def count(self, key_id: str, limits: Limits) -> Verdict | None:
        """Counts one request; None where Redis is away."""
        if self._time() < self._again:
            UNLIMITED.inc()
            return None
        most = (limits.per_minute or 0, limits.per_hour or 0)
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._script(keys=[f"rl:{{{key_id}}}:m", f"rl:{{{key_id}}}:h"], args=list(most))
        except (RedisError, OSError, TimeoutError) as error:
            self._again = self._time() + PAUSE_SECONDS
            UNLIMITED.inc()
            telemetry.log("rate limits are not counted", "warning", error=telemetry.brief(error))
            return None
        return verdict(bool(found[0]), most, (found[1], found[3]), (found[2], found[4]))


def verdict(open_: bool, most: tuple[int, int], counts: tuple[int, int], left_ms: tuple[int, int]) -> Verdict:
    """The verdict and its headers, of the minute and the hour; a limit of 0 is none."""
    windows = [
        (max(limit - count, 0), limit, max(-(-left // 1000), 1), window)
        for limit, count, left, window in zip(most, counts, left_ms, WINDOWS, strict=True)
        if limit
    ]
    remaining, limit, reset, window = min(windows, key=lambda w: w[0] / w[1])
    policy = ", ".join(f'"{w[3]}";q={w[1]};w={w[3]}' for w in windows)
    headers = (
        (b"x-ratelimit-limit", b"%d" % limit),
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % reset),
        (b"ratelimit", b'"%d";r=%d;t=%d' % (window, remaining, reset)),
        (b"ratelimit-policy", policy.encode()),
    )
    if open_:
        return Verdict(open=True, headers=headers)
    REFUSED.inc()
    return Verdict(open=False, headers=headers, retry_after=max(w[2] for w in windows if not w[0]))
