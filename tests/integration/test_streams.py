"""A reader of the stream of changes, while the gateways that it reads from are killed and end."""

import asyncio
import os
import signal
from typing import Any

import httpx
import msgspec
from harness.client import Client, slot, until
from harness.stack import Stack


class Follower:
    """What a client does with server-sent events: reads, and after each end connects elsewhere, by the last id."""

    def __init__(self, urls: list[str], key: str, after: str) -> None:
        self._urls, self._key = urls, key
        self.at, self.connections = after, 0
        self.told: list[str] = []

    async def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "text/event-stream"}
        async with httpx.AsyncClient(headers=headers, timeout=30) as http:
            while True:
                url = self._urls[self.connections % len(self._urls)] + "/api/v1/changes"
                try:
                    async with http.stream("GET", url, headers={"Last-Event-ID": self.at}) as answer:
                        self.connections += answer.status_code == 200
                        await self._read(answer)
                except httpx.HTTPError:
                    self.connections += 1
                await asyncio.sleep(0.05)

    async def _read(self, answer: httpx.Response) -> None:
        cursor = ""
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                cursor = line[4:]
            elif line.startswith("data: "):
                self.told.append(msgspec.json.decode(line[6:])["id"])
                self.at = cursor


async def test_a_stream_goes_on_over_gateways_that_die_and_restart(stack: Stack, api: Client) -> None:
    kind = await api.event_type()
    start = (await api.ok("GET", "/changes", params={"after": "latest"}))["next_cursor"]
    follower = Follower(stack.urls, stack.key, start)
    following = asyncio.create_task(follower.run())
    gateways = sorted(name for name in stack.units() if name.startswith("gateway"))
    booked = 0

    async def book(count: int) -> None:
        nonlocal booked
        for _ in range(count):
            assert (await api.book(kind, slot(booked))).status_code == 201
            booked += 1

    try:
        await book(4)
        for end in (signal.SIGKILL, signal.SIGTERM):
            for name in gateways:
                dead = stack.pid(name)
                os.kill(dead, end)
                await book(6)
                await asyncio.to_thread(stack.wait_restarted, name, dead)

        rows: list[Any] = []

        async def listed() -> bool:
            rows[:] = await everything(api, start)
            return len(rows) >= 2 * booked

        async def told() -> bool:
            return len(follower.told) >= len(rows)

        await until(listed, 180, "every event of every booking")
        await until(told, 180, "as many on the stream")
    finally:
        following.cancel()
    assert follower.told[: len(rows)] == [row["id"] for row in rows], "each once, in order"
    assert follower.connections > 1


async def everything(api: Client, after: str) -> list[Any]:
    """All that /changes has after a place, by pages."""
    rows: list[Any] = []
    while True:
        page = await api.ok("GET", "/changes", params={"after": after, "limit": 100})
        rows += page["data"]
        after = page["next_cursor"]
        if not page["has_more"]:
            return rows
