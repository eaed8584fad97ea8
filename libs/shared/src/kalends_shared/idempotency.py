"""Idempotency-Key: the first answer to a POST is stored in the transaction of its effects, and given again.

A plain command runs under `idempotent`. A service whose commit is one SQL function calls `idempotency_begin` and
`idempotency_put` (sql/idempotency) in there, and uses the pieces below: `request_hash`, `find`, `answer`, `columns`,
`refuse`. Stored are 2xx answers and the operation's own 409; all else leaves the key free.

Whoever stores an answer, a refusal too, has taken the key's lock first and has looked after that. So of one key all
answers that are final are the stored one, and a stored refusal means that nothing was done under its key.
"""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from kalends_shared.contracts.call import Call, Reply, encoded
from kalends_shared.contracts.errors import ErrorBody, KalendsError
from kalends_shared.db import Connection, Database, Queryable, tolerant
from kalends_shared.service import wait

REPLAYED: Final = {"Idempotent-Replayed": "true"}
SECRETS: Final = ("secret",)
KEPT_HOURS: Final = 48
PRUNE_SECONDS: Final = 60.0

FIND: Final = """
SELECT request_hash, status, error, headers, body FROM idempotency
WHERE tenant_id = $1 AND method = $2 AND path = $3 AND key = $4
"""
BEGIN: Final = "SELECT outcome, request_hash, status, error, headers, body FROM idempotency_begin($1, $2, $3, $4)"
PUT: Final = "SELECT idempotency_put($1, $2, $3, $4, $5, $6, false, $7, $8, $9)"
REFUSE: Final = """
SELECT outcome, request_hash, status, error, headers, body FROM idempotency_refuse($1, $2, $3, $4, $5, $6, $7)
"""
PRUNE: Final = """
DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency WHERE created_at < now() - make_interval(hours => $1) LIMIT $2
))
"""

Handler = Callable[[Connection], Awaitable[Reply]]
Method = Callable[[Call], Awaitable[Reply]]


class _Head(msgspec.Struct, omit_defaults=True):
    """What is stored of an answer beside its status and body."""

    etag: str | None = None
    location: str | None = None
    position: str | None = None
    headers: dict[str, str] = {}


class Columns(NamedTuple):
    """What of an answer is stored."""

    status: int
    headers: bytes
    body: bytes


async def idempotent(
    db: Database, call: Call, handler: Handler, *, secrets: Collection[str] = SECRETS, person_id: str | None = None
) -> Reply:
    """Runs a command in a transaction, once a key; without a key it only runs it.

    `handler` gets the transaction, in which nothing has been written and no lock of the event store is held. Members of
    the answer named by `secrets` are stored as null. `person_id` is whose data the answer holds, for their erasure.

    Raises:
        KalendsError: the handler's own; `idempotency_in_flight`; `idempotency_key_reused` where the key came with
            another body; `malformed`.
    """
    if call.idempotency_key is None:
        async with db.transaction() as conn:
            return await handler(conn)
    fingerprint = request_hash(call.body)
    try:
        async with db.transaction() as conn:
            if (stored := await begin(conn, call, fingerprint)) is not None:
                return stored
            reply = await handler(conn)
            reply.body = encoded(reply.body)
            await put(conn, call, fingerprint, reply, secrets=secrets, person_id=person_id)
            return reply
    except KalendsError as refusal:
        # What was stored, or is in flight, is no answer of this operation.
        if refusal.headers == REPLAYED or not storable(refusal):
            raise
        return await refuse(db.pool, call, fingerprint, refusal)


def first_answers(db: Database, handlers: Mapping[str, Method]) -> dict[str, Method]:
    """The handlers of a service, which look for the stored answer also before they refuse a request.

    What was asked may be gone since, or another body may be wrong in itself: under a used key neither is what is told.
    """
    return {name: _first_answer(db, handler) for name, handler in handlers.items()}


def _first_answer(db: Database, handler: Method) -> Method:
    async def handle(call: Call) -> Reply:
        try:
            return await handler(call)
        except KalendsError as refusal:
            keyed = call.method == "POST" and call.idempotency_key is not None
            # An own 409 has been looked for where it arose, and may be this request's own.
            if not keyed or refusal.status not in {400, 404, 412, 422} or refusal.headers == REPLAYED:
                raise
            stored = await begin(db.pool, call, request_hash(call.body))
            if stored is None:
                raise
            return stored

    return handle


def request_hash(body: bytes) -> bytes:
    """The hash of a body as parsed JSON: spaces, the order of members and 1 for 1.0 make no difference.

    Raises:
        KalendsError: `malformed`.
    """
    try:
        parsed = msgspec.json.Decoder(float_hook=_number).decode(body if body.strip() else b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise KalendsError("malformed", "The body is not JSON.") from error
    return hashlib.sha256(msgspec.json.encode(parsed, order="deterministic")).digest()


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return int(value) if value.is_integer() else value


async def find(conn: Queryable, call: Call, fingerprint: bytes) -> Reply | None:
    """The stored answer to this key, or None; `conn` may be a pool. The look before any work is done.

    Raises:
        KalendsError: the stored refusal, or `idempotency_key_reused`.
    """
    row = await conn.fetchrow(FIND, *_key(call))
    return None if row is None else answer(row, fingerprint)


async def answered(conn: Queryable, call: Call) -> Reply | None:
    """The stored answer to a call, None where there is none, or no key: `find` before what takes long, or may be gone.

    Raises:
        KalendsError: as `find`; `malformed`.
    """
    return None if call.idempotency_key is None else await find(conn, call, request_hash(call.body))


async def begin(conn: Queryable, call: Call, fingerprint: bytes) -> Reply | None:
    """Holds the key until the transaction ends, or gives the stored answer. It writes nothing and never waits.

    With a pool for `conn` the key is not held on: it is told whether anybody else holds it.

    Raises:
        KalendsError: `idempotency_in_flight`; the stored refusal; `idempotency_key_reused`.
    """
    return _earlier(await conn.fetchrow(BEGIN, *_key(call)), fingerprint)


def _earlier(begun: Any, fingerprint: bytes) -> Reply | None:
    """The answer that is there already, by a row of `idempotency_begin` or `idempotency_refuse`.

    Raises:
        KalendsError: as `begin`.
    """
    match begun["outcome"]:
        case "new":
            return None
        case "in_flight":
            raise in_flight()
        case _:
            return answer(begun, fingerprint)


def in_flight() -> KalendsError:
    return KalendsError("idempotency_in_flight", "The first request under this key is still at work.", retry_after=1)


def answer(row: Mapping[str, Any], fingerprint: bytes) -> Reply:
    """A stored row as the answer it was, marked as replayed.

    Raises:
        KalendsError: the stored refusal, marked too; `idempotency_key_reused` where the request differed.
    """
    if row["request_hash"] != fingerprint:
        raise KalendsError("idempotency_key_reused", "This key was used with another body.")
    if row["error"]:
        refusal = KalendsError.of(_ERROR.decode(row["body"]))
        refusal.headers = REPLAYED
        raise refusal
    head = _HEAD.decode(row["headers"])
    return Reply(
        status=row["status"],
        body=row["body"],
        etag=head.etag,
        location=head.location,
        position=head.position,
        headers=head.headers | REPLAYED,
    )


async def put(
    conn: Connection,
    call: Call,
    fingerprint: bytes,
    reply: Reply,
    *,
    secrets: Collection[str] = SECRETS,
    person_id: str | None = None,
) -> None:
    """Stores a 2xx answer, in the transaction of its effects."""
    if 200 <= reply.status < 300:
        await conn.execute(PUT, *_key(call), fingerprint, *columns(reply, secrets), person_id)


def columns(reply: Reply, secrets: Collection[str] = SECRETS) -> Columns:
    """What of an answer is stored."""
    head = _Head(reply.etag, reply.location, reply.position, reply.headers)
    return Columns(reply.status, msgspec.json.encode(head), _without(encoded(reply.body), secrets))


def storable(refusal: KalendsError) -> bool:
    """Tells whether this is the operation's own 409, which a retry gets again."""
    return refusal.status == 409 and refusal.code != "idempotency_in_flight"


async def refuse(conn: Queryable, call: Call, fingerprint: bytes, refusal: KalendsError) -> Reply:
    """Stores the operation's own 409 after its transaction has rolled back, and raises it; `conn` may be a pool.

    It is stored as it is told, with the id of its request.

    Another request under the key may have been answered meanwhile: then that answer, the first stored, is this one's too.
    Or it is still at work: then its answer is to come, whatever this one was refused for.

    Raises:
        KalendsError: the refusal, or the one stored first; `idempotency_in_flight`; `idempotency_key_reused`.
    """
    refusal.extra = refusal.extra | {"request_id": call.request_id}
    body = msgspec.json.encode(refusal.body())
    first = _earlier(await conn.fetchrow(REFUSE, *_key(call), fingerprint, refusal.status, body), fingerprint)
    if first is None:
        raise refusal
    return first


async def prune(conn: Queryable, limit: int = 1000) -> int:
    """Forgets at most `limit` answers older than 48 hours; returns how many. `conn` may be a pool."""
    status: str = await conn.execute(PRUNE, KEPT_HOURS, limit)
    return int(status.rpartition(" ")[2])


async def keep_pruned(pool: Any, stop: asyncio.Event) -> None:
    """Forgets old answers, in batches, until `stop`; a task for `Service.supervise`."""
    while not await wait(stop, PRUNE_SECONDS):
        with tolerant("answers.not_pruned"):
            while await prune(pool) and not stop.is_set():
                pass


def _key(call: Call) -> tuple[str, str, str, str]:
    assert call.idempotency_key is not None
    return call.tenant, call.method, call.path, call.idempotency_key


def _without(body: bytes, secrets: Collection[str]) -> bytes:
    """The body with these members null and all else byte for byte."""
    if not any(f'"{name}"'.encode() in body for name in secrets):
        return body
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({name: None if name in secrets else value for name, value in members.items()})


_HEAD: Final = msgspec.json.Decoder(_Head)
_ERROR: Final = msgspec.json.Decoder(ErrorBody)
