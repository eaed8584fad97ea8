"""What the gateway's tests talk with: a gateway's process, its bootstrap, its API under a key."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from kalends_shared.contracts.call import Call

ROOMY = {"per_minute": 1_000_000, "per_hour": 10_000_000}


class Running:
    """One gateway process."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, name: str) -> None:
        self.process, self.log = process, folder / f"{name}.log"
        self.url = "http://" + (folder / f"{name}.http").read_text().strip()
        self.ops = "http://" + (folder / f"{name}.ops").read_text().strip()

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [msgspec.json.decode(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient(timeout=60) as http:
            text = (await http.get(self.ops + "/metrics")).text
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + " ", name + "{"))
        )

    async def ready(self) -> bool:
        async with httpx.AsyncClient(timeout=60) as http:
            return (await http.get(self.ops + "/health/ready")).status_code == 200

    async def end(self) -> int:
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 120)


class Api:
    """The API under a key."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url, self.key = url, key
        self.http = httpx.AsyncClient(base_url=url + "/api/v1", headers=headers, timeout=60)

    async def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return await self.http.request(method, path, json=json, **more)

    async def made(self, path: str, json: Any, **more: Any) -> dict[str, Any]:
        answer = await self.http.post(path, json=json, **more)
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body


Start = Callable[..., Awaitable[Running]]
Under = Callable[..., Api]
Keyed = Callable[..., Awaitable[Api]]
Serve = Callable[..., Awaitable[list[Call]]]


def environment(database: str, nats: str, redis: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("KALENDS_")},
        "KALENDS_DATABASE_URL": database,
        "KALENDS_NATS_URL": nats,
        "KALENDS_REDIS_URL": redis,
        "KALENDS_HTTP_PORT": "0",
        # What a stalled machine must not run into; a test that is about one of them sets it.
        "KALENDS_REQUEST_SECONDS": "30",
        "KALENDS_KEY_LEASE_SECONDS": "20",
        "KALENDS_RATE_LIMIT_SECONDS": "20",
    }


@asynccontextmanager
async def running(env: Mapping[str, str], folder: Path, name: str = "gateway") -> AsyncIterator[Running]:
    """A gateway that is ready to serve, ended afterwards."""
    log = folder / f"{name}.log"
    own = {**env, "KALENDS_RUN_DIR": str(folder), "KALENDS_PROCESS_NAME": name}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "kalends_gateway", env=own, stderr=out)
    try:
        async with asyncio.timeout(120):
            while not (folder / f"{name}.ops").exists():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield Running(process, folder, name)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 120)


async def bootstrap(env: Mapping[str, str]) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kalends_gateway", "bootstrap", env=dict(env), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    made: dict[str, str] = msgspec.json.decode(out)
    return made


def problem(answer: httpx.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    """The problem document that an answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"} <= document.keys()
    assert (document["status"], document["code"], document["request_id"]) == (
        status,
        code,
        answer.headers["x-request-id"],
    )
    if pointer is not None:
        assert pointer in [error["pointer"] for error in document["errors"]]
    return document
