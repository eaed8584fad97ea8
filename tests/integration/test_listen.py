"""`kalends listen`: events reach a receiver that only this machine can reach."""

import asyncio
import os
import sys

from harness.client import Client, booking, slot, until
from harness.sink import Sink
from harness.stack import Stack
from standardwebhooks.webhooks import Webhook


async def test_events_are_forwarded_signed_and_those_from_before_are_not(stack: Stack, api: Client, receiver: Sink):
    made = await api.ok("POST", "/api-keys", {"name": "laptop", "mode": "test", "scopes": ["write"]})
    async with Client(stack.urls, made["secret"]) as laptop:
        kind = await laptop.event_type()
        before = await laptop.call("POST", "/bookings", booking(kind, slot(1)))
        assert before.status_code == 201

        after: dict[str, str] = {}

        async def told() -> bool:
            """Reads on; other tests of the stack have made changes too."""
            answer = await laptop.call("GET", "/changes", params={"limit": "100"} | after)
            after["after"] = answer.json()["next_cursor"]
            return before.json()["id"] in answer.text

        await until(told, 180, "the first booking's events")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kalends_cli", "listen", "--forward-to", receiver.url + "/local", "--event", "booking.confirmed"),
            env=os.environ | {"KALENDS_URL": stack.urls[0], "KALENDS_API_KEY": made["secret"]},
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            assert b"test mode" in await asyncio.wait_for(process.stdout.readline(), 180)
            secret = (await process.stdout.readline()).decode().split()[1]
            # What happens from that line on is forwarded, though the stream may not be open yet.
            later = await laptop.call("POST", "/bookings", booking(kind, slot(2)))

            async def heard() -> bool:
                return bool(receiver.got)

            await until(heard, 180, "a forwarded event")
            path, headers, body = receiver.got[0]
            assert path == "/local"
            Webhook(secret).verify(body, headers)
            assert (await asyncio.wait_for(process.stdout.readline(), 180)).decode().split()[-1] == "200"
            assert set(receiver.bookings("booking.confirmed")) == {later.json()["id"]}
        finally:
            process.kill()
            await process.wait()


async def test_a_live_key_is_refused_unless_it_is_meant(stack: Stack):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kalends_cli", "listen", "--forward-to", "http://127.0.0.1:9/"),
        env=os.environ | {"KALENDS_URL": stack.urls[0], "KALENDS_API_KEY": stack.key},
        stderr=asyncio.subprocess.PIPE,
    )
    _, problem = await asyncio.wait_for(process.communicate(), 180)
    assert (process.returncode, b"live key" in problem) == (1, True)
