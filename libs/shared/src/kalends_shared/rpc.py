"""Requests between services: NATS request and reply on `kalends.rpc.<service>.<method>`, a queue group a service.

A request is the caller's bytes; what the gateway knows of the call travels as one header, `Kalends-Call`, in JSON, which
costs a tenth of a header a field. A reply is the answer's bytes; what is not a plain 200 stands in its `Kalends-Reply`
header. `nats.micro` serves `$SRV` discovery only, as its endpoints serve one request at a time.
"""

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro import add_service
from nats.micro.service import Service as Discovery
from prometheus_client import Counter, Gauge

from kalends_shared import telemetry
from kalends_shared.contracts.call import Call, Reply, encoded
from kalends_shared.contracts.errors import ErrorBody, KalendsError
from kalends_shared.db import transient
from kalends_shared.nats import PENDING_LIMIT

Handler = Callable[[Call], Awaitable[Reply]]
T = TypeVar("T", bound=msgspec.Struct)

DEADLINE_SECONDS: Final = 10.0  # of a call that brings none
COMPRESS_BYTES: Final = 64 * 1024
GRACE_SECONDS: Final = 5.0  # past its deadline a handler is cancelled; the database gives up at 5 s by itself
_PAUSES: Final = (0.01, 0.02, 0.05, 0.1, 0.25)  # between tries where nobody answers; the last one repeats
_LEAST_ATTEMPT: Final = 1.0
_LEAST_LEFT: Final = 0.01  # what is asked with less before the deadline cannot be answered by it
_CALL, _REPLY = "Kalends-Call", "Kalends-Reply"

DROPPED: Final = Counter("kalends_rpc_dropped_total", "Requests dropped past their deadline.", ["service"])
IN_FLIGHT: Final = Gauge("kalends_rpc_in_flight", "Requests being handled or waiting for their turn.", ["service"])


class _Head(msgspec.Struct, omit_defaults=True):
    """What a reply says beside its body."""

    status: int = 200
    error: bool = False
    etag: str | None = None
    location: str | None = None
    position: str | None = None
    headers: dict[str, str] = {}
    gzip: bool = False


_encode: Final = msgspec.json.Encoder().encode
_read_call: Final = msgspec.json.Decoder(Call).decode
_read_head: Final = msgspec.json.Decoder(_Head).decode
_read_error: Final = msgspec.json.Decoder(ErrorBody).decode
_PLAIN: Final = _Head()


class RpcServer:
    """Serves a service's methods: a task a request, at most `concurrency` at work, the others in their order."""

    def __init__(self, bus: Client, service: str, handlers: Mapping[str, Handler], concurrency: int = 64) -> None:
        self._bus, self._service, self._handlers = bus, service, handlers
        self._turn = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._discovery: Discovery | None = None
        self._in_flight = IN_FLIGHT.labels(service)

    async def start(self) -> None:
        """Takes requests from here on."""
        for method, handler in self._handlers.items():
            subject = f"kalends.rpc.{self._service}.{method}"
            taker = self._taker(method, handler)
            self._subscriptions.append(
                await self._bus.subscribe(subject, queue=self._service, cb=taker, pending_msgs_limit=PENDING_LIMIT)
            )
        self._discovery = await add_service(
            self._bus,
            name=f"kalends-{self._service}".replace("_", "-"),
            version="0.1.0",
            description=f"The {self._service} service of Kalends.",
            metadata={"methods": ",".join(self._handlers)},
        )
        await self._bus.flush()

    async def stop(self, seconds: float = 10.0) -> None:
        """Takes no more, and waits so many seconds for what is in flight; what is late is cancelled, unanswered."""
        for subscription in self._subscriptions:
            await subscription.drain()  # type: ignore[no-untyped-call]  # the client leaves it out
        self._subscriptions.clear()
        if self._discovery is not None:
            await self._discovery.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)
        await self._bus.flush()

    def _taker(self, method: str, handler: Handler) -> Callable[[Msg], Awaitable[None]]:
        async def take(message: Msg) -> None:
            if len(self._tasks) >= PENDING_LIMIT:
                await self._refuse(message, KalendsError("unavailable", "Too much is going on.", retry_after=1))
                return
            task = asyncio.create_task(self._serve(method, handler, message))
            self._tasks.add(task)
            self._in_flight.inc()
            task.add_done_callback(self._done)

        return take

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_flight.dec()
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.failed("rpc.reply_failed", error)

    async def _serve(self, method: str, handler: Handler, message: Msg) -> None:
        try:
            call = msgspec.structs.replace(_read_call((message.headers or {})[_CALL]), body=message.data)
        except (KeyError, msgspec.MsgspecError):
            await self._refuse(message, KalendsError("internal", "The request between services cannot be read."))
            return
        async with self._turn:
            if call.deadline and time.time() > call.deadline:
                DROPPED.labels(self._service).inc()
                return
            try:
                reply = await self._handle(method, handler, call)
            except KalendsError as refusal:
                await self._refuse(message, refusal)
                return
            try:
                await self._answer(message, reply)
            except nats_errors.MaxPayloadError as error:
                telemetry.failed("rpc.reply_too_large", error, method=method)
                await self._refuse(message, KalendsError("internal"))

    async def _handle(self, method: str, handler: Handler, call: Call) -> Reply:
        """Runs the handler as a unit of work. Raises nothing but KalendsError, so that no exception's text leaves."""
        line = telemetry.unit("rpc", method, call.traceparent, tenant=call.tenant, request_id=call.request_id)
        try:
            with line as unit:
                async with asyncio.timeout(
                    max(call.deadline - time.time(), 0) + GRACE_SECONDS if call.deadline else None
                ):
                    reply = await handler(call)
                unit.fields["status"] = reply.status
                return reply
        except KalendsError:
            raise
        except Exception as error:
            raise as_refusal(error) from error

    async def _answer(self, message: Msg, reply: Reply) -> None:
        body = encoded(reply.body)
        head = _Head(reply.status, False, reply.etag, reply.location, reply.position, reply.headers)
        if len(body) > COMPRESS_BYTES:
            body, head.gzip = gzip.compress(body, 1, mtime=0), True
        headers = None if head == _PLAIN else {_REPLY: _encode(head).decode()}
        await self._bus.publish(message.reply, body, headers=headers)

    async def _refuse(self, message: Msg, refusal: KalendsError) -> None:
        head = _Head(refusal.status, error=True)
        await self._bus.publish(message.reply, _encode(refusal.body()), headers={_REPLY: _encode(head).decode()})


class RpcClient:
    """Calls the methods of other services."""

    def __init__(self, bus: Client) -> None:
        self._bus = bus

    async def request(self, service: str, method: str, call: Call, *, retry: bool = False) -> Reply:
        """Asks, until the call's deadline, and gives the answer with its body as bytes.

        Where nobody listens it asks again, as nothing was done. What has timed out is asked again only with `retry`:
        for reads, and for writes under an Idempotency-Key whose answer holds no secret.

        Raises:
            KalendsError: what the service answered; `unavailable` where nobody listened, `timeout` where nobody answered.
        """
        subject = f"kalends.rpc.{service}.{method}"
        deadline = call.deadline or time.time() + DEADLINE_SECONDS
        with telemetry.span("call", f"{service}.{method}") as span:
            traceparent, failure, tries = span.traceparent, KalendsError("timeout"), 0
            while (left := deadline - time.time()) > _LEAST_LEFT:
                if tries or not self._bus.is_connected:
                    await asyncio.sleep(min(left, _PAUSES[min(tries, len(_PAUSES) - 1)]))
                tries += 1
                if not self._bus.is_connected:
                    failure = KalendsError("unavailable", retry_after=1)  # what is sent now would be sent late
                    continue
                patience = max(left / 2, _LEAST_ATTEMPT) if retry else left
                head = msgspec.structs.replace(call, body=b"", deadline=time.time() + patience, traceparent=traceparent)
                try:
                    message = await self._bus.request(
                        subject, call.body, timeout=patience, headers={_CALL: _encode(head).decode()}
                    )
                except nats_errors.NoRespondersError:
                    failure = KalendsError("unavailable", retry_after=1)
                    continue
                except nats_errors.TimeoutError:
                    failure = KalendsError("timeout")
                    if not retry:
                        break
                    continue
                except nats_errors.MaxPayloadError as error:
                    raise KalendsError("payload_too_large") from error
                except nats_errors.Error:
                    failure = KalendsError("unavailable", retry_after=1)
                    continue
                try:
                    return _reply(message)
                except KalendsError as refusal:
                    if refusal.code != "idempotency_in_flight" or failure.code != "timeout" or tries == 1:
                        raise
                    failure = refusal  # our own first try is still at work; its answer is the answer
            raise failure

    async def ask(
        self,
        service: str,
        method: str,
        body: msgspec.Struct,
        kind: type[T],
        *,
        within: Call | None = None,
        tenant: str = "",
        seconds: float = DEADLINE_SECONDS,
        retry: bool = True,
    ) -> T:
        """Calls an internal method, with a Struct and for one; `within` hands on the tenant, clock, actor and deadline of a call.

        Raises:
            KalendsError: as request.
        """
        if within is not None:
            call = msgspec.structs.replace(within, body=_encode(body), idempotency_key=None, min_position=None)
            if not within.deadline:
                call = msgspec.structs.replace(call, deadline=time.time() + seconds)
        else:
            call = Call(tenant=tenant, now=datetime.now(UTC), deadline=time.time() + seconds, body=_encode(body))
        reply = await self.request(service, method, call, retry=retry)
        return msgspec.json.decode(reply.body, type=kind)


def as_refusal(error: Exception) -> KalendsError:
    """What a caller hears of an error that is no refusal: that something is away for now, or that we failed; never its text."""
    if transient(error) or isinstance(error, nats_errors.Error):
        return KalendsError("unavailable", retry_after=1)
    return KalendsError("internal")


def _reply(message: Msg) -> Reply:
    raw = (message.headers or {}).get(_REPLY)
    if raw is None:
        return Reply(body=message.data)
    head = _read_head(raw)
    if head.error:
        raise KalendsError.of(_read_error(message.data))
    body = gzip.decompress(message.data) if head.gzip else message.data
    return Reply(
        status=head.status,
        body=body,
        etag=head.etag,
        location=head.location,
        position=head.position,
        headers=head.headers,
    )
