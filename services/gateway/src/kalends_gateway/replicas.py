"""The gateways that are alive, and how all of them forget a key before its revocation is answered.

Each writes a heartbeat. Whoever revokes a key, commits, then tells all by message and waits for the word of every one
that has beaten lately, at most for as long as a memory holds by itself. A gateway that cannot write its heartbeat
remembers nothing, since nobody would wait for it.
"""

import asyncio
import uuid
from typing import Any, Final, Protocol

import asyncpg
import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import Counter

from kalends_gateway.store import replicas
from kalends_shared.service import wait

SUBJECT: Final = "kalends.gateway.forget"
BEAT_SECONDS: Final = 1.0
REMEMBER_SECONDS: Final = 3.0  # since its last beat; less than the others count it as alive
ALIVE_SECONDS: Final = 5.0
MARGIN_SECONDS: Final = 0.1

LEASES: Final = Counter(
    "kalends_gateway_forget_by_lease_total", "Revocations answered after the lease, as a gateway had not answered."
)


class Forgetful(Protocol):
    def forget(self, *, key_id: str | None = None, tenant: str | None = None) -> None: ...


class _Order(msgspec.Struct):
    """What is to be forgotten: one key, or all that is known of a tenant."""

    key_id: str | None = None
    tenant: str | None = None


class Replicas:
    """This gateway among the others."""

    def __init__(self, pool: "asyncpg.Pool[Any]", bus: Client, lease: float) -> None:
        """`lease` is for how many seconds the memory of any of them holds by itself."""
        self.id = uuid.uuid4().hex
        self._pool, self._bus, self._lease = pool, bus, lease
        self._beaten = -REMEMBER_SECONDS
        self._time = asyncio.get_running_loop().time

    def counted(self) -> bool:
        """Tells whether the others would wait for this one."""
        return self._time() - self._beaten < REMEMBER_SECONDS

    async def join(self, memory: Forgetful) -> None:
        """Listens for what is to be forgotten, and beats for the first time."""

        async def obey(message: Msg) -> None:
            order = msgspec.json.decode(message.data, type=_Order)
            memory.forget(key_id=order.key_id, tenant=order.tenant)
            await self._bus.publish(message.reply, self.id.encode())

        await self._bus.subscribe(SUBJECT, cb=obey)
        await self._bus.flush()
        await self._beat()

    async def beat(self, stop: asyncio.Event) -> None:
        """Beats until `stop`, then leaves."""
        while not await wait(stop, BEAT_SECONDS):
            await self._beat()
        await replicas.forget(self._pool, self.id)

    async def _beat(self) -> None:
        began = self._time()
        await replicas.beat(self._pool, self.id)
        self._beaten = began

    async def forget(self, *, key_id: str | None = None, tenant: str | None = None) -> None:
        """Returns once no gateway remembers it any more. To be called after the commit."""
        answers: asyncio.Queue[str] = asyncio.Queue()

        async def heard(message: Msg) -> None:
            answers.put_nowait(message.data.decode())

        try:
            async with asyncio.timeout(self._lease + MARGIN_SECONDS):
                inbox = self._bus.new_inbox()
                subscription = await self._bus.subscribe(inbox, cb=heard)
                try:
                    await self._bus.publish(SUBJECT, msgspec.json.encode(_Order(key_id, tenant)), reply=inbox)
                    missing = await replicas.live(self._pool, ALIVE_SECONDS)
                    while missing:
                        missing.discard(await answers.get())
                finally:
                    await subscription.unsubscribe()
        except TimeoutError:
            LEASES.inc()
