"""The connection to NATS, with the client settings that the defaults get wrong for us (each was measured)."""

import random
import ssl
from typing import Final

import nats
from nats.aio.client import Client

from kalends_shared import telemetry
from kalends_shared.ops import Health

PENDING_LIMIT: Final = 1_000  # messages a subscription holds; past it the client drops them


async def connect(url: str, name: str, health: Health | None = None, tls: ssl.SSLContext | None = None) -> Client:
    """Connects, and keeps the connection for as long as the process lives; `url` may name several servers, by commas.

    Reconnects for ever every 0.1 s (by default the client gives up after 60 tries, two seconds apart) and pings every
    5 s (120 s by default), so that a server that has vanished is noticed. Waits for a server that is not there yet.
    Feeds `health` where it is given.
    """
    client: Client | None = None
    told: str | None = None

    async def lost() -> None:
        if client is not None and client.is_closed:
            return  # by ourselves
        if health is not None:
            health.set("nats", "disconnected")
        telemetry.log("nats.disconnected", "warning")

    async def back() -> None:
        nonlocal told
        told = None
        if health is not None:
            health.set("nats", None)
        telemetry.log("nats.reconnected")

    async def wrong(error: Exception) -> None:
        nonlocal told
        text = telemetry.brief(error)
        # A server that is away is tried ten times a second, and fails in the same way each time.
        if text != told or (client is not None and client.is_connected):
            telemetry.log("nats.error", "warning", error=text)
        told = text

    servers = [server.strip() for server in url.split(",")]
    client = await nats.connect(
        servers=random.sample(servers, len(servers)),
        name=name,
        reconnect_time_wait=0.1,
        max_reconnect_attempts=-1,
        ping_interval=5,
        max_outstanding_pings=2,
        connect_timeout=2,
        drain_timeout=10,
        disconnected_cb=lost,
        reconnected_cb=back,
        error_cb=wrong,
        tls=tls,
    )
    if health is not None:
        health.set("nats", None)
    return client


async def close(client: Client) -> None:
    """Closes the connection. Where the server is away, what was still to be sent is lost, and that is all."""
    try:
        await client.close()
    except OSError as error:
        telemetry.log("nats.closed_away", "warning", error=telemetry.brief(error))
