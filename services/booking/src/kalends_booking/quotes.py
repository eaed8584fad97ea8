"""Availability, asked over NATS."""

import asyncio
from typing import Final

import msgspec

from kalends_shared.contracts.call import Call
from kalends_shared.contracts.quotes import Alternatives, AlternativesRequest, Quote, QuoteRequest
from kalends_shared.db import Database
from kalends_shared.rpc import RpcClient

SERVICE: Final = "availability"
LATEST: Final = "SELECT tx, position FROM events ORDER BY tx DESC, position DESC LIMIT 1"


class RpcQuotes:
    """handlers.context.Quotes over RPC. Many who are refused the same start at once ask for other starts once."""

    def __init__(self, rpc: RpcClient, db: Database) -> None:
        self._rpc, self._db = rpc, db
        self._asking: dict[tuple[str, bytes], asyncio.Task[Alternatives]] = {}

    async def quote(self, call: Call, request: QuoteRequest, /) -> Quote:
        return await self._rpc.ask(SERVICE, "quote", request, Quote, within=call)

    async def alternatives(self, call: Call, request: AlternativesRequest, /) -> Alternatives:
        key = call.tenant, msgspec.json.encode(request)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._alternatives(call, request))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def _alternatives(self, call: Call, request: AlternativesRequest) -> Alternatives:
        latest = await self._db.pool.fetchrow(LATEST)
        request = msgspec.structs.replace(request, seen=tuple(latest) if latest else (0, 0))
        return await self._rpc.ask(SERVICE, "alternatives", request, Alternatives, within=call)

    def _forget(self, key: tuple[str, bytes], task: asyncio.Task[Alternatives]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # looked at, since all who asked may have stopped waiting
