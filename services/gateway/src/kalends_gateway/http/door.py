"""The door: the ASGI middleware around the application, for what precedes routing and what every answer carries.

Litestar raises 404 and 405 before any middleware of its own runs, and those too are counted against the key's limit.
"""

import asyncio
from typing import Any, Final

from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from prometheus_client import Gauge

from kalends_gateway.http import request
from kalends_gateway.http.admission import Admission, Headers
from kalends_gateway.http.visit import Visit
from kalends_gateway.http.wire import ROOT, refused
from kalends_shared import telemetry
from kalends_shared.contracts.errors import not_found

GRACE_SECONDS: Final = 1.0  # past a request's deadline, for the answer that tells of it
ACTIVE: Final = Gauge("kalends_gateway_requests_active", "Requests being served.")


class Door:
    """Lets requests into the application: each is one unit of work, admitted by its key, and ended after `seconds`."""

    def __init__(self, app: ASGIApp, admission: Admission, seconds: float) -> None:
        self._app, self._admission, self._seconds = app, admission, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            return
        ACTIVE.inc()
        try:
            await self._serve(scope, receive, send)
        finally:
            ACTIVE.dec()

    async def _serve(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        head = request.head(scope["headers"])
        request_id = request.request_id(head)
        more: Headers = [(b"x-request-id", request_id.encode())]
        limit: asyncio.Timeout | None = None
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if limit is not None:
                    limit.reschedule(None)  # it holds until there is an answer; a stream's has no end
                unit.fields["status"] = message["status"]
                message["headers"] = [*message["headers"], *more]
                await visit.body.drain()
            await send(message)

        traceparent = request.text(head, b"traceparent")
        with telemetry.unit("http", "unknown", traceparent, request_id=request_id) as unit:  # named once it is routed
            visit = scope["state"]["visit"] = Visit(head, request_id, request.Body(head, receive), unit)
            try:
                async with asyncio.timeout(self._seconds + GRACE_SECONDS) as limit:
                    await self._enter(scope["path"], visit, more)
                    await self._app(scope, receive, answer)
            except Exception as error:
                if begun:
                    raise
                limit = None
                asked = Request[Any, Any, Any](scope)
                await refused(asked, error).to_asgi_response(None, asked)(scope, receive, answer)

    async def _enter(self, path: str, visit: Visit, more: Headers) -> None:
        inside = path.startswith(ROOT + "/")
        if inside:
            visit.identity = identity = await self._admission.admit(visit.head, more)
            visit.unit.fields["tenant"], visit.unit.fields["key"] = identity.tenant, identity.key_id
        # Litestar would take these for the path without them.
        if "//" in path or (inside and path.endswith("/")):
            raise not_found("This path")
