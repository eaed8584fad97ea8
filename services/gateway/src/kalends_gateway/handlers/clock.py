"""The test clock of a test tenant: the gateway keeps it, and stamps every call with it."""

from datetime import UTC, datetime
from typing import Final

from kalends_gateway.domain.clock import moved
from kalends_gateway.replicas import Replicas
from kalends_gateway.store import clocks
from kalends_shared.contracts.accounts import ClockMove, ClockMoved, TestClock, TestClockIn
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import decode
from kalends_shared.contracts.errors import not_found
from kalends_shared.db import Connection, Database
from kalends_shared.idempotency import idempotent
from kalends_shared.rpc import RpcClient

TIMER_SECONDS: Final = 4.0  # the transaction that holds the clock ends at five


class Clock:
    """The handlers of /test-clock."""

    def __init__(self, db: Database, replicas: Replicas, rpc: RpcClient) -> None:
        self._db, self._replicas, self._rpc = db, replicas, rpc

    async def get_test_clock(self, call: Call) -> Reply:
        _only_in_test_mode(call)
        return Reply(body=TestClock(now=await clocks.get(self._db.pool, call.tenant)))

    async def set_test_clock(self, call: Call) -> Reply:
        """Moves the clock; what it passes is fired by the booking service, in order, before the clock shows the new time."""
        _only_in_test_mode(call)

        async def work(conn: Connection) -> Reply:
            await clocks.lock(conn, call.tenant)
            was = await clocks.get(conn, call.tenant)
            now = moved(decode(call.body, TestClockIn), was, datetime.now(UTC))
            moved_on = await self._rpc.ask(
                "booking",
                "advance_clock",
                ClockMove(was=was, now=now),
                ClockMoved,
                tenant=call.tenant,
                seconds=TIMER_SECONDS,
                retry=False,
            )
            await clocks.put(conn, call.tenant, now)
            return Reply(body=TestClock(now=now), position=moved_on.position)

        reply = await idempotent(self._db, call, work)
        await self._replicas.forget(tenant=call.tenant)
        return reply


def _only_in_test_mode(call: Call) -> None:
    if call.mode != "test":
        raise not_found("A test clock")
