"""The route handlers of the API, one for each endpoint of the contract: from a request to a service's answer.

In this order a request is judged: its key and its rate limit (by the door), its path and method (by Litestar), its scope
(so, before existence), its headers, its query, its body's size and type. All else is the service's that owns the endpoint.
"""

import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from litestar import HttpMethod, Request, Response
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from kalends_gateway.domain.scopes import suffices
from kalends_gateway.http import request
from kalends_gateway.http.admission import Admission, unauthenticated
from kalends_gateway.http.visit import Visit, visit_of
from kalends_gateway.http.wire import ROOT, answered
from kalends_shared.contracts import decode
from kalends_shared.contracts.call import Call, Reply, encoded
from kalends_shared.contracts.endpoints import ENDPOINTS, Endpoint, NoQuery
from kalends_shared.contracts.errors import KalendsError, not_found
from kalends_shared.rpc import Handler, RpcClient

# Their answers show a secret once: a second try would be answered without it.
HOLDS_A_SECRET: Final = frozenset({"create_api_key", "roll_api_key", "create_webhook", "rotate_secret"})
EVENTS: Final = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NEEDED: Final = {"hooks": "read or webhooks"}

StillAllowed = Callable[[], Awaitable[bool]]
Streamer = Callable[[Call, str | None, StillAllowed], Awaitable[AsyncGenerator[bytes, None]]]


class Api:
    """The endpoints.

    `local` are those that the gateway answers itself, `streams` those that may be read as server-sent events, both by
    name; a body may have `body_limit` bytes, a call `seconds`.
    """

    def __init__(
        self,
        admission: Admission,
        rpc: RpcClient,
        *,
        local: Mapping[str, Handler],
        streams: Mapping[str, Streamer],
        seconds: float,
        body_limit: int,
    ) -> None:
        self._admission, self._rpc, self._local, self._streams = admission, rpc, local, streams
        self._seconds, self._body_limit = seconds, body_limit

    def handlers(self) -> list[HTTPRouteHandler]:
        """All of them; before them, since Litestar else answers it itself, what refuses OPTIONS like any unknown method."""
        methods: defaultdict[str, list[HttpMethod]] = defaultdict(list)
        for endpoint in ENDPOINTS:
            methods[_template(endpoint)] += _methods(endpoint)
        refused = [_no_options(path, found) for path, found in methods.items()]
        return [*refused, *map(self._handler, ENDPOINTS)]

    def _handler(self, endpoint: Endpoint) -> HTTPRouteHandler:
        name = f"{endpoint.method} {endpoint.path}"
        streamer = self._streams.get(endpoint.rpc)

        async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
            visit = visit_of(request.scope)
            visit.unit.rename(name)
            call = await self._call(endpoint, request, visit)
            streamed = b"text/event-stream" in visit.head.get(b"accept", b"") and request.method == "GET"
            if streamer is not None and streamed:
                return await self._stream(streamer, call, visit.head)
            reply = await self._ask(endpoint, call)
            return answered(reply, call)

        return HTTPRouteHandler(_template(endpoint), http_method=_methods(endpoint), name=name, status_code=200)(handle)

    async def _call(self, endpoint: Endpoint, asked: Request[Any, Any, Any], visit: Visit) -> Call:
        head, identity = visit.head, visit.identity
        if identity is None:
            raise unauthenticated()
        if not suffices(identity.scopes, endpoint.needs):
            raise KalendsError(
                "insufficient_scope", f"This needs the scope {_NEEDED.get(endpoint.needs, endpoint.needs)}."
            )
        ids: dict[str, str] = asked.path_params
        if not all(map(_ID.fullmatch, ids.values())):
            raise not_found("This id")
        key = request.idempotency_key(asked.scope["headers"]) if endpoint.method == "POST" else None
        if key is None and endpoint.idempotency == "required":
            raise KalendsError("idempotency_key_required", "This needs an Idempotency-Key.")
        query = asked.scope["query_string"].decode("latin-1")
        if query and endpoint.query is NoQuery:
            decode.query(query, NoQuery)  # refuses; the others' parameters are judged by the service that reads them
        return Call(
            tenant=identity.tenant,
            now=identity.stopped_at or datetime.now(UTC),
            method=endpoint.method,
            path=asked.scope["path"][len(ROOT) :],
            query=query,
            params=ids,
            account_id=identity.account_id,
            mode=identity.mode,
            timezone=identity.timezone,
            actor=identity.actor,
            scopes=identity.scopes,
            request_id=visit.request_id,
            deadline=time.time() + self._seconds,
            idempotency_key=key if endpoint.idempotency != "none" else None,
            if_match=request.if_match(head) if endpoint.method != "GET" else None,
            if_none_match=request.text(head, b"if-none-match"),
            min_position=request.min_position(head),
            frozen_clock=identity.stopped_at is not None,
            body=await visit.body.read(self._body_limit) if endpoint.method != "GET" else b"",
        )

    async def _ask(self, endpoint: Endpoint, call: Call) -> Reply:
        if endpoint.service == "gateway":
            reply = await self._local[endpoint.rpc](call)
            reply.body = encoded(reply.body)
            return reply
        retry = endpoint.retry_unkeyed or (call.idempotency_key is not None and endpoint.rpc not in HOLDS_A_SECRET)
        return await self._rpc.request(endpoint.service, endpoint.rpc, call, retry=retry)

    async def _stream(self, streamer: Streamer, call: Call, head: request.Head) -> Stream:
        last = request.text(head, b"last-event-id")
        return Stream(await streamer(call, last, partial(self._admission.still, head)), headers=EVENTS)


def _template(endpoint: Endpoint) -> str:
    return ROOT + endpoint.path.replace("}", ":str}")


def _methods(endpoint: Endpoint) -> list[HttpMethod]:
    """What can be read can be asked after by HEAD, too (RFC 9110 9.1); the server leaves the body out."""
    own = HttpMethod(endpoint.method)
    return [own, HttpMethod.HEAD] if own == HttpMethod.GET else [own]


def _no_options(path: str, methods: list[HttpMethod]) -> HTTPRouteHandler:
    async def refuse() -> None:
        raise MethodNotAllowedException(headers={"allow": ", ".join(methods)})

    return HTTPRouteHandler(path, http_method=HttpMethod.OPTIONS)(refuse)
