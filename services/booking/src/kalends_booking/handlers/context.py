"""What every handler works with."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from kalends_booking.domain.refusals import WITH_ALTERNATIVES
from kalends_booking.store import replies
from kalends_shared import idempotency
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.quotes import Alternatives, AlternativesRequest, Quote, QuoteRequest
from kalends_shared.db import Database

QUOTE_SECONDS: Final = 5.0  # an older one is asked again
# Of a command whose stream, person or choices others took meanwhile. Each such loss is another's gain, so this is only
# a bound; past it nothing is known of the slot, and so nothing is said of it.
ATTEMPTS: Final = 50


class Quotes(Protocol):
    """What availability is asked, within a call."""

    async def quote(self, call: Call, request: QuoteRequest, /) -> Quote: ...

    async def alternatives(self, call: Call, request: AlternativesRequest, /) -> Alternatives: ...


class Context(Struct, frozen=True):
    """The service's own database, availability, what wakes the relay after a commit, and a refusal's patience."""

    db: Database
    quotes: Quotes
    nudge: Callable[[], Awaitable[None]]
    alternatives_seconds: float = 20.0


class Quoted:
    """A quote that is asked for when it is needed, and again once it is old."""

    def __init__(self, ctx: Context, call: Call, request: QuoteRequest) -> None:
        self._ctx, self._call, self.request = ctx, call, request
        self._quote: Quote | None = None
        self._asked = 0.0

    async def fresh(self) -> Quote:
        now = asyncio.get_running_loop().time()
        if self._quote is None or now - self._asked > QUOTE_SECONDS:
            self._quote, self._asked = await self._ctx.quotes.quote(self._call, self.request), now
        return self._quote

    def ask_also(self, starts: list[datetime]) -> None:
        """Has these starts quoted too, from the next time on, which asks again."""
        self.request.more_starts = starts
        self._quote = None


def crowded() -> KalendsError:
    return KalendsError("unavailable", "Too many others were faster each time.", retry_after=1)


def require_key(call: Call) -> None:
    if call.idempotency_key is None:
        raise KalendsError("idempotency_key_required", "This request needs an Idempotency-Key header.")


async def under_key(
    ctx: Context,
    call: Call,
    work: Callable[[bytes], Awaitable[Reply]],
    *,
    looked: bool = False,
    instead: Callable[[], AlternativesRequest] | None = None,
) -> Reply:
    """Runs a command that stores its own answer in its commit; a refusal of its own is stored here, after it.

    `work` is given the hash of the body. `looked`: the caller has looked for a stored answer already. `instead` says
    which other starts to offer with a refused one.
    """
    reply = await _under_key(ctx, call, work, looked=looked, instead=instead)
    return await replies.placed(ctx.db.pool, call, reply) if reply.headers == idempotency.REPLAYED else reply


async def _under_key(
    ctx: Context,
    call: Call,
    work: Callable[[bytes], Awaitable[Reply]],
    *,
    looked: bool,
    instead: Callable[[], AlternativesRequest] | None,
) -> Reply:
    if call.idempotency_key is None:
        fingerprint = b""
    else:
        fingerprint = idempotency.request_hash(call.body)
        if not looked and (stored := await idempotency.find(ctx.db.pool, call, fingerprint)) is not None:
            return stored
    try:
        return await work(fingerprint)
    except KalendsError as refusal:
        if refusal.headers == idempotency.REPLAYED:
            raise
        if instead is not None and refusal.code in WITH_ALTERNATIVES:
            refusal.extra = refusal.extra | {"alternatives": await _alternatives(ctx, call, instead())}
        if call.idempotency_key is None or not idempotency.storable(refusal):
            raise
        return await idempotency.refuse(ctx.db.pool, call, fingerprint, refusal)


async def _alternatives(ctx: Context, call: Call, request: AlternativesRequest) -> list[dict[str, str]]:
    """Other starts that are offered; none where availability does not tell in time."""
    try:
        async with asyncio.timeout(ctx.alternatives_seconds):
            found = await ctx.quotes.alternatives(call, request)
    except (KalendsError, TimeoutError):
        return []
    made: list[dict[str, str]] = msgspec.to_builtins(found.data)
    return made
