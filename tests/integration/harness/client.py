"""A client as its author would want it: many at once, and every write tried again under its own Idempotency-Key."""

import asyncio
import itertools
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import httpx

ALWAYS: Final = {
    "name": "Always",
    "timezone": "UTC",
    "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00", "end": "24:00"}],
}
RETRIED: Final = {502, 503, 504}
MIDNIGHT: Final = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def slot(number: int, *, days_ahead: int = 3) -> str:
    """The n-th half hour from three days ahead of the run, which may itself go past midnight."""
    return (MIDNIGHT + timedelta(days=days_ahead, minutes=30 * number)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Client:
    """Spreads requests over the gateway's replicas. `outstanding` are the writes that wait for an answer, since when."""

    urls: list[str]
    key: str
    outstanding: dict[int, float] = field(default_factory=dict)
    retried: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_connections=400, max_keepalive_connections=100)
        self.http = httpx.AsyncClient(headers={"Authorization": f"Bearer {self.key}"}, timeout=30, limits=limits)
        self._next = itertools.cycle(self.urls)
        self._tickets = itertools.count()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **more: Any
    ) -> httpx.Response:
        """One request, once."""
        headers = more.pop("headers", {})
        if method == "POST":
            headers = {"Idempotency-Key": key or str(uuid.uuid4())} | headers
        return await self.http.request(method, f"{next(self._next)}/api/v1{path}", json=body, headers=headers, **more)

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """What must succeed; a read of a write that cannot be seen yet is tried again, as that refusal says."""
        until = asyncio.get_running_loop().time() + 120
        answer = await self.call(method, path, body, **more)
        while "position_not_reached" in answer.text and asyncio.get_running_loop().time() < until:
            answer = await self.call(method, path, body, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json() if answer.content else None

    async def persist(
        self, path: str, body: Any, *, key: str | None = None, seconds: float = 180, method: str = "POST"
    ) -> httpx.Response:
        """A write, tried again until it has an answer that is one; a POST under the same key."""
        key = key or str(uuid.uuid4())
        loop, ticket = asyncio.get_running_loop(), next(self._tickets)
        deadline = loop.time() + seconds
        while True:
            self.outstanding[ticket] = loop.time()
            try:
                answer = await self.call(method, path, body, key=key)
            except httpx.TransportError as error:
                self.retried[type(error).__name__] += 1
            else:
                busy = answer.status_code == 409 and answer.json()["code"] == "idempotency_in_flight"
                if answer.status_code not in RETRIED and not busy:
                    return answer
                self.retried[str(answer.status_code)] += 1
            finally:
                del self.outstanding[ticket]
            assert loop.time() < deadline, f"{method} {path} {body}: no answer within {seconds:g} s"
            await asyncio.sleep(0.05)

    def stuck(self, longer_than: float) -> int:
        """How many writes have waited for so long."""
        now = asyncio.get_running_loop().time()
        return sum(now - since > longer_than for since in self.outstanding.values())

    async def host(self, schedule: dict[str, Any] = ALWAYS) -> str:
        made = await self.ok("POST", "/schedules", schedule)
        host = await self.ok(
            "POST", "/hosts", {"name": "Grace", "timezone": schedule["timezone"], "schedule_id": made["id"]}
        )
        return str(host["id"])

    async def event_type(self, host: str | None = None, **settings: Any) -> str:
        host = host or await self.host()
        body = {
            "title": "Visit",
            "slug": f"e-{uuid.uuid4().hex[:12]}",
            "duration_minutes": 30,
            "hosts": [{"host_id": host}],
        }
        return str((await self.ok("POST", "/event-types", body | settings))["id"])

    async def book(self, event_type: str, start_at: str, **more: Any) -> httpx.Response:
        return await self.persist("/bookings", booking(event_type, start_at), **more)

    async def offered(self, event_type: str, day: str) -> set[str]:
        params = {"start": day[:10], "end": day[:10], "timezone": "UTC"}
        answer = await self.ok("GET", f"/event-types/{event_type}/availability", params=params)
        starts = (datetime.fromisoformat(s["start_at"]) for d in answer["days"] for s in d["slots"])
        return {at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in starts}


def booking(event_type: str, start_at: str, **more: Any) -> dict[str, Any]:
    body = {
        "event_type_id": event_type,
        "start_at": start_at,
        "booker_name": "Ada Lovelace",
        "booker_email": "ada@example.test",
    }
    return body | more


async def until(look: Any, seconds: float, what: str) -> Any:
    """Awaits `look()` again and again until it gives something true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (seen := await look()):
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.05)
    return seen
