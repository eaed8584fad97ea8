"""The OpenAPI 3.1 document, made of the table of endpoints and the public Structs."""

import re
from collections.abc import Iterable
from typing import Any, Final

from kalends_gateway.http.examples import BODIES
from kalends_gateway.http.schemas import REF, Schemas
from kalends_gateway.http.wire import ROOT
from kalends_shared.contracts.endpoints import ENDPOINTS, Endpoint
from kalends_shared.contracts.errors import STATUS, TITLES

VERSION: Final = "1.0.0"
_TAGS: Final = {
    "profile": "Account", "me": "Account", "api-keys": "Account", "test-clock": "Test clock", "hosts": "Availability", "schedules": "Availability",
    "locations": "Availability", "resources": "Availability", "event-types": "Availability", "booking-pages": "Availability",
    "availability": "Availability", "holds": "Booking", "bookings": "Booking", "people": "People", "calendars": "Calendars", "events": "Calendars",
    "webhooks": "Webhooks", "deliveries": "Webhooks", "changes": "Webhooks",
}  # fmt: skip
DESCRIPTION: Final = """A scheduling engine for products: availability, holds, bookings, calendars, and webhooks for every change.

**Keys.** Every request carries an API key, `Authorization: Bearer kal_live_...` or `X-API-Key`. Live and test mode share nothing.

**Errors** are `application/problem+json`; `code` is for programs, `errors[].pointer` names the member (`#/hosts/0/host_id`) or the parameter (`?start`).

**Idempotency.** A POST with an `Idempotency-Key` is done once, however often it is sent; the answer is given again with `Idempotent-Replayed: true`.

**Concurrency.** `ETag` is a thing's version; `If-Match` holds a write to it.

**Reading one's writes.** Answers to writes carry `Kalends-Position`; a read with it as `Kalends-Min-Position` sees that write.

**Lists** go by `limit` and `cursor`, or by `page` and `per_page`.

**Limits.** Answers under a limited key carry `X-RateLimit-*`, `RateLimit` and `RateLimit-Policy`; over it is 429 with `Retry-After`."""


def document() -> dict[str, Any]:
    """The whole document, ready to be encoded."""
    schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(ROOT + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Kalends",
            "version": VERSION,
            "summary": "Self-hosted scheduling.",
            "description": DESCRIPTION,
        },
        "servers": [{"url": "/", "description": "This installation"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(_TAGS.values())],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.found.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `kal_live_...` or `kal_test_...`.",
                },
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "The same key, in a header of its own.",
                },
            },
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "responses": {code: _refusal(code) for code in STATUS},
        },
    }


def _schemas() -> Schemas:
    bodies = {e.body for e in ENDPOINTS if e.body is not None}
    answers = {e.answer for e in ENDPOINTS if e.answer is not None}
    schemas = Schemas(frozenset(answers - bodies))
    for kind in sorted(bodies | answers, key=lambda kind: kind.__name__):
        schemas.add(kind)
        if kind in bodies:
            schemas.found[kind.__name__]["additionalProperties"] = False
        if example := BODIES.get(kind):
            schemas.found[kind.__name__]["examples"] = [example]
    lists = {e.answer.__name__ for e in ENDPOINTS if e.lists and e.answer is not None}
    schemas.found |= {f"{name}List": _list(name) for name in lists} | {"Problem": _PROBLEM}
    return schemas


def _operation(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [_TAGS[endpoint.path.split("/")[1]]],
        "description": _needed(endpoint),
        "parameters": [
            *_path_parameters(endpoint.path),
            *_query_parameters(endpoint, schemas),
            *_header_parameters(endpoint),
        ],
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        name = endpoint.body.__name__
        if endpoint.method == "PATCH":
            content = {
                "application/merge-patch+json": _content({"type": "object"}),
                "application/json": _content({"type": "object"}),
            }
            operation["description"] += f" The body is a JSON merge patch (RFC 7396) of `{name}`."
        else:
            content = {"application/json": _content({"$ref": REF + name})}
        required = bool(schemas.found[name].get("required"))
        operation["requestBody"] = {"required": required or endpoint.method == "PATCH", "content": content}
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    head, *rest = endpoint.rpc.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _needed(endpoint: Endpoint) -> str:
    needs = {"any": "Any key may.", "hooks": "Needs the scope `read` or `webhooks`."}
    return needs.get(endpoint.needs, f"Needs the scope `{endpoint.needs}`.")


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(endpoint: Endpoint, schemas: Schemas) -> list[dict[str, Any]]:
    members, required = schemas.properties(endpoint.query)
    found = []
    for name, schema in members.items():
        plain = _without_null(schema)
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in required, "schema": plain}
        if plain.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        found.append(parameter)
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out where it is not set, so its schema need not speak of null."""
    plain = dict(schema)
    if isinstance(plain.get("type"), list):
        plain["type"] = plain["type"][0]
    if "enum" in plain:
        plain["enum"] = [value for value in plain["enum"] if value is not None]
    return plain


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = {
        "GET": ["MinPosition", "IfNoneMatch"],
        "POST": {"required": ["IdempotencyKeyRequired"], "honoured": ["IdempotencyKey"], "none": []}[
            endpoint.idempotency
        ],
        "PATCH": ["IfMatch"],
        "DELETE": ["IfMatch"],
    }[endpoint.method]
    return [{"$ref": f"#/components/parameters/{name}"} for name in [*names, "RequestId"]]


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    headers = ["X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    headers += ["ETag"] if endpoint.answer is not None and not endpoint.lists else []
    headers += ["Location"] if endpoint.status == 201 else []
    headers += ["Kalends-Position"] if endpoint.method != "GET" else []
    answer: dict[str, Any] = {
        "description": {200: "Done.", 201: "Made.", 202: "Taken on.", 204: "Gone."}[endpoint.status],
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
    }
    if endpoint.answer is not None:
        name = endpoint.answer.__name__ + ("List" if endpoint.lists else "")
        answer["content"] = {"application/json": _content({"$ref": REF + name})}
    if endpoint.rpc == "list_changes":
        answer["content"]["text/event-stream"] = _content(
            {"type": "string", "description": "An event a change; its `id` is the cursor."}
        )
    unchanged = (
        {"304": {"description": "It is still what If-None-Match names."}}
        if "ETag" in headers and endpoint.method == "GET"
        else {}
    )
    return {str(endpoint.status): answer, **unchanged, **_refusals(endpoint)}


def _refusals(endpoint: Endpoint) -> dict[str, Any]:
    codes = [
        "unauthenticated",
        "insufficient_scope",
        "rate_limited",
        "unavailable",
        "timeout",
        "validation_failed",
        "malformed",
        *endpoint.errors,
    ]
    codes += ["not_found"] if "{" in endpoint.path else []
    codes += ["payload_too_large", "unsupported_media_type"] if endpoint.method in {"POST", "PATCH"} else []
    codes += ["version_mismatch"] if endpoint.method in {"PATCH", "DELETE"} else []
    codes += ["idempotency_in_flight", "idempotency_key_reused"] if endpoint.idempotency != "none" else []
    codes += ["idempotency_key_required"] if endpoint.idempotency == "required" else []
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    return {str(status): _either(by_status[status]) for status in sorted(by_status)}


def _either(codes: list[str]) -> dict[str, Any]:
    if len(codes) == 1:
        return {"$ref": f"#/components/responses/{codes[0]}"}
    told = ", ".join(f"`{code}`" for code in codes)
    return {
        "description": f"One of {told}.",
        "content": {"application/problem+json": _content({"$ref": REF + "Problem"})},
    }


def _refusal(code: str) -> dict[str, Any]:
    example = {
        "type": f"/docs#problem-{code}", "title": TITLES[code], "status": STATUS[code], "detail": f"{TITLES[code]}.", "instance": f"{ROOT}/bookings",
        "code": code, "request_id": "req_5f0c6f1f3a7e4b1d9c2e8a40", "errors": [],
    }  # fmt: skip
    content = _content({"$ref": REF + "Problem"}) | {"example": example}
    return {"description": f"{TITLES[code]} (`{code}`).", "content": {"application/problem+json": content}}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": schema}


def _list(name: str) -> dict[str, Any]:
    numbered = {"description": "Where the list was asked for by number.", "type": "integer"}
    return {
        "type": "object",
        "required": ["data", "has_more", "next_cursor"],
        "properties": {
            "data": {"type": "array", "items": {"$ref": REF + name}},
            "has_more": {"type": "boolean"},
            "next_cursor": {"type": ["string", "null"]},
            "page": numbered,
            "per_page": numbered,
            "total": numbered,
        },
    }


def _text() -> dict[str, Any]:
    return {"type": "string"}


def _header(
    name: str, description: str, schema: dict[str, Any] | None = None, *, required: bool = False
) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema or _text()}


_POSITION: Final = {
    "type": "string",
    "pattern": "^[a-z_]{1,32}:[0-9]{1,20}\\.[0-9]{1,20}(,[a-z_]{1,32}:[0-9]{1,20}\\.[0-9]{1,20}){0,15}$",
}
_KEY: Final = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
_ONCE: Final = "Under one key a request is done once; the stored answer is given again."
_PARAMETERS: Final = {
    "IdempotencyKey": _header("Idempotency-Key", _ONCE, _KEY),
    "IdempotencyKeyRequired": _header("Idempotency-Key", _ONCE, _KEY, required=True),
    "IfMatch": _header("If-Match", "Does it only to this version, as an ETag named it."),
    "IfNoneMatch": _header("If-None-Match", "Answers 304 where the thing is still of this version."),
    "MinPosition": _header(
        "Kalends-Min-Position", "Waits until the write is seen whose Kalends-Position this was.", _POSITION
    ),
    "RequestId": _header("X-Request-Id", "Echoed, and found in the logs, where it has 1 to 128 printable characters."),
}


def _told(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


_HEADERS: Final = {
    "X-Request-Id": _told("The request's id."),
    "ETag": _told("The thing's version."),
    "Location": _told("Where the thing is."),
    "Kalends-Position": _told("The write's place; opaque."),
    "X-RateLimit-Limit": _told("Requests of the window with the smallest fraction left.", "integer"),
    "X-RateLimit-Remaining": _told("How many of them are left.", "integer"),
    "X-RateLimit-Reset": _told("Seconds until it begins anew.", "integer"),
}
_PROBLEM: Final = {
    "type": "object",
    "title": "A problem document (RFC 9457)",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "errors"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": _text(),
        "status": {"type": "integer"},
        "detail": _text(),
        "instance": {"type": "string", "format": "uri-reference"},
        "code": {"type": "string", "enum": sorted(STATUS)},
        "request_id": _text(),
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {"pointer": _text(), "code": _text(), "detail": _text(), "rule": _text()},
            },
        },
        "alternatives": {
            "description": "Of a refused start: the next ones offered.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "start_at": {"type": "string", "format": "date-time"},
                    "end_at": {"type": "string", "format": "date-time"},
                },
            },
        },
        "state": {"description": "Of `invalid_state`: the state that it is in.", "type": "string"},
    },
    "additionalProperties": True,
}


def operations(paths: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of a document, in its order."""
    for path, item in paths.items():
        for method, operation in item.items():
            yield method.upper(), path, operation
