"""Answers as HTTP has them, problem documents among them."""

from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, Response
from litestar.exceptions import ClientException, MethodNotAllowedException, NotFoundException

from kalends_gateway.http.visit import visit_of
from kalends_shared import telemetry
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import STATUS, TITLES, KalendsError, not_found
from kalends_shared.rpc import as_refusal

ROOT: Final = "/api/v1"
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
# What is an account's alone no proxy may keep, with a key in X-API-Key neither; a client may, to ask by its ETag.
_KEPT: Final = "private, no-cache"
_NOT_KEPT: Final = "no-store"
_SAFE: Final = "/:@!$&'()*+,;=-._~"  # what a path holds as it is (RFC 3986)


def answered(reply: Reply, call: Call) -> Response[bytes]:
    """A service's answer, whose body is bytes; 304 where the caller has it already."""
    reading = call.method == "GET"
    headers = {"cache-control": _KEPT if reading else _NOT_KEPT}
    if reply.etag is not None:
        headers["etag"] = reply.etag
        known = call.if_none_match if reading else None
        if known is not None and reply.status == 200 and _matches(known, reply.etag):
            return Response(b"", status_code=304, headers=headers)
    if reply.location is not None:
        headers["location"] = ROOT + reply.location
    if reply.position is not None:
        headers["kalends-position"] = reply.position
    headers |= reply.headers
    return Response(
        b"" if reply.status == 204 else reply.body, status_code=reply.status, headers=headers, media_type=_JSON
    )


def refused(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The problem document (RFC 9457) of whatever ended a request."""
    refusal, visit = _refusal(error), visit_of(request.scope)
    visit.unit.outcome = refusal.code
    # A code that the table does not know is a fault of ours.
    known = refusal.code in STATUS
    code, detail = (refusal.code, refusal.detail) if known else ("internal", TITLES["internal"])
    document: dict[str, Any] = {
        "type": f"/docs#problem-{code}",
        "title": TITLES[code],
        "status": STATUS[code],
        "detail": detail,
        "instance": quote(request.scope["path"], safe=_SAFE),
        "code": code,
        # Of a stored refusal, which is given again as it was told, that of its own request.
        "request_id": refusal.extra.get("request_id", visit.request_id),
        "errors": refusal.fields,
    }
    headers = {"cache-control": _NOT_KEPT, **refusal.headers}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    body = msgspec.json.encode({**refusal.extra, **document})
    return Response(body, status_code=STATUS[code], headers=headers, media_type=_PROBLEM)


def _refusal(error: Exception) -> KalendsError:
    """What the caller hears of an error; of one that nobody foresaw, the text stays here."""
    match error:
        case KalendsError():
            return error
        case TimeoutError():
            return KalendsError("timeout")
        case NotFoundException():
            return not_found("This path")
        case MethodNotAllowedException():
            methods = set((error.headers or {}).get("allow", "").split(", ")) - {"OPTIONS"}
            return KalendsError(
                "method_not_allowed",
                "This path does not have that method.",
                headers={"Allow": ", ".join(sorted(methods))},
            )
        case ClientException():
            return KalendsError("malformed", f"{error.detail}.")
    refusal = as_refusal(error)
    if refusal.code == "internal":
        telemetry.failed("request failed", error)
    return refusal


def _matches(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags
