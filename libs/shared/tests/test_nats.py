"""The connection to NATS, to a server that goes and comes back."""

from itertools import pairwise
from typing import Any

import pytest

from kalends_shared import nats, telemetry
from kalends_shared.ops import Health
from kalends_shared.servers import Nats
from kalends_shared.testkit.waiting import eventually_async


async def test_a_connection_closes_also_while_its_server_is_away(own_nats: Nats) -> None:
    health = Health()
    health.set("start", None)
    client = await nats.connect(own_nats.url, "test", health)

    async def lost() -> bool:
        return not health.ready

    own_nats.kill()
    await eventually_async(lost)
    await client.publish("x", b"never sent")
    await nats.close(client)
    assert client.is_closed


async def test_a_server_that_is_away_is_told_once(own_nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(telemetry, "log", lambda name, *_, **fields: told.append((name, fields.get("error"))))
    health = Health()
    client = await nats.connect(own_nats.url, "test", health)
    failed, tell = 0, client._error_cb

    async def counted(error: Exception) -> None:
        nonlocal failed
        failed += 1
        await tell(error)

    monkeypatch.setattr(client, "_error_cb", counted)

    async def tried() -> bool:
        return failed > 5

    async def back() -> bool:
        return ("nats.reconnected", None) in told

    try:
        own_nats.kill()
        await eventually_async(tried)
        assert health.problems()["nats"] == "disconnected"
        own_nats.start()
        await eventually_async(back)
    finally:
        await client.close()
    errors = [error for name, error in told if name == "nats.error"]
    assert errors
    assert all(one != other for one, other in pairwise(errors))
    assert "nats" not in health.problems()
