"""The OpenAPI 3.1 document, made of the table of endpoints and the public Structs."""

import re
from collections.abc import Iterable
from typing import Any, Final

from kalends_gateway.http.examples import BODIES
from kalends_gateway.http.schemas import REF, Schemas
from kalends_gateway.http.wire import ROOT
from kalends_shared.contracts import webhooks
from kalends_shared.contracts.endpoints import ENDPOINTS, Endpoint
from kalends_shared.contracts.errors import STATUS, TITLES

VERSION: Final = "1.0.0"
_TAGS: Final = {
    "profile": "Account", "me": "Account", "api-keys": "Account", "test-clock": "Test clock", "hosts": "Availability", "schedules": "Availability",
    "locations": "Availability", "resources": "Availability", "event-types": "Availability", "booking-pages": "Availability",
    "availability": "Availability", "holds": "Booking", "bookings": "Booking", "people": "People", "calendars": "Calendars", "events": "Calendars",
    "webhooks": "Webhooks", "deliveries": "Webhooks", "changes": "Webhooks",
}  # fmt: skip
_ABOUT: Final = {
    "Account": "The account behind the key, and its keys.",
    "Test clock": "The time of test mode.",
    "Availability": "Hosts, when they work, what can be booked with them, and what is free.",
    "Booking": "Holds and bookings.",
    "People": "Who has booked.",
    "Calendars": "Connected calendars, their events, and own blocks.",
    "Webhooks": "Subscriptions to events, deliveries and their log, and the events themselves.",
}
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
        "tags": [{"name": tag, "description": text} for tag, text in _ABOUT.items()],
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
            "responses": {code: _refusal([code]) for code in STATUS if code in _referred(paths)},
        },
    }


def _schemas() -> Schemas:
    schemas = Schemas()
    for endpoint in ENDPOINTS:
        if endpoint.answer is not None:
            name = schemas.add(endpoint.answer, "answer")
            if endpoint.lists:
                schemas.found[f"{name}List"] = _list(name)
    for endpoint in ENDPOINTS:
        if endpoint.body is not None:
            name = schemas.add(endpoint.body, "patch" if endpoint.method == "PATCH" else "body")
            if endpoint.method != "PATCH" and endpoint.body in BODIES:
                schemas.found[name]["examples"] = [BODIES[endpoint.body]]
    answers = schemas.found["ManyAnswers"]["properties"]["data"]
    answers["items"] = {"anyOf": [{"$ref": REF + "Availability"}, {"$ref": REF + "QueryRefusal"}]}
    schemas.found["PublicEvent"]["properties"]["data"] = _EVENT_DATA
    schemas.found["HistoryEntry"]["properties"]["data"] = {"type": "object", "additionalProperties": True}
    schemas.found |= {"Problem": _PROBLEM, "ProblemField": _FIELD, "QueryRefusal": _QUERY_REFUSAL}
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
        patch = endpoint.method == "PATCH"
        name = schemas.add(endpoint.body, "patch" if patch else "body")
        kinds = ["application/json", "application/merge-patch+json"] if patch else ["application/json"]
        operation["requestBody"] = {
            "required": patch or "required" in schemas.found[name],
            "content": {kind: _content({"$ref": REF + name}) for kind in kinds},
        }
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
    members, required = schemas.parameters(endpoint.query)
    found = []
    for name, schema in members.items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in required, "schema": schema}
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        found.append(parameter)
    return found


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = {
        "GET": ["MinPosition", *(["IfNoneMatch"] if _versioned(endpoint) else [])],
        "POST": {"required": ["IdempotencyKeyRequired"], "honoured": ["IdempotencyKey"], "none": ["MinPosition"]}[
            endpoint.idempotency
        ],
        "PATCH": ["IfMatch"],
        "DELETE": ["IfMatch"],
    }[endpoint.method]
    names += ["IfMatch"] if endpoint.method == "POST" and "{" in endpoint.path else []
    return [{"$ref": f"#/components/parameters/{name}"} for name in [*names, "RequestId"]]


def _versioned(endpoint: Endpoint) -> bool:
    """Whether its answer is one thing whose version is its ETag, or availability, whose ETag names what is in it.

    A delivery's version counts its attempts, and is not all that changes of it.
    """
    if endpoint.answer in {None, webhooks.Delivery} or endpoint.lists:
        return False
    return "version" in endpoint.answer.__struct_fields__ or endpoint.rpc == "availability"


def _writes(endpoint: Endpoint) -> bool:
    return endpoint.method != "GET" and endpoint.rpc != "query_availability"


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    headers = [*_LIMITS]
    headers += ["ETag"] if _versioned(endpoint) else []
    headers += ["Location"] if endpoint.status == 201 or endpoint.rpc == "test_webhook" else []
    headers += ["Kalends-Position"] if _writes(endpoint) else []
    headers += ["Idempotent-Replayed"] if endpoint.idempotency != "none" else []
    answer: dict[str, Any] = {
        "description": {200: "Done.", 201: "Made.", 202: "Taken on.", 204: "Gone."}[endpoint.status],
        "headers": _headers(headers),
    }
    if endpoint.answer is not None:
        name = endpoint.answer.__name__ + ("List" if endpoint.lists else "")
        answer["content"] = {"application/json": _content({"$ref": REF + name})}
    if endpoint.rpc == "list_changes":
        answer["content"]["text/event-stream"] = _content(
            {"type": "string", "description": "An event a change; its `id` is the cursor."}
        )
    unchanged = {"description": "It is still what If-None-Match names.", "headers": _headers([*_LIMITS, "ETag"])}
    return {
        str(endpoint.status): answer,
        **({"304": unchanged} if _versioned(endpoint) and endpoint.method == "GET" else {}),
        **_refusals(endpoint),
    }


def _refusals(endpoint: Endpoint) -> dict[str, Any]:
    codes = [*_ANYWHERE, *endpoint.errors]
    codes += ["not_found"] if "{" in endpoint.path else []
    codes += ["position_not_reached"] if not _writes(endpoint) else []
    codes += ["payload_too_large", "unsupported_media_type"] if endpoint.method in {"POST", "PATCH"} else []
    codes += ["version_mismatch"] if _writes(endpoint) and "{" in endpoint.path else []
    codes += ["idempotency_in_flight", "idempotency_key_reused"] if endpoint.idempotency != "none" else []
    codes += ["idempotency_key_required"] if endpoint.idempotency == "required" else []
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    return {
        str(status): _refusal(some) if len(some) > 1 else {"$ref": f"#/components/responses/{some[0]}"}
        for status, some in sorted(by_status.items())
    }


def _referred(paths: dict[str, Any]) -> set[str]:
    """The codes whose responses operations refer to; those that share a status with others are told in place."""
    responses = [response for _, _, operation in operations(paths) for response in operation["responses"].values()]
    return {response["$ref"].rpartition("/")[2] for response in responses if "$ref" in response}


def _refusal(codes: list[str]) -> dict[str, Any]:
    examples = {code: {"summary": TITLES[code], "value": _example(code)} for code in codes}
    told = ", ".join(f"`{code}`" for code in codes)
    headers = [*_LIMITS, *dict.fromkeys(_HEADER_OF[code] for code in codes if code in _HEADER_OF)]
    # An operation's own 409 is stored under its key, as its success is.
    headers += ["Idempotent-Replayed"] if "idempotency_in_flight" in codes and len(codes) > 1 else []
    return {
        "description": f"{TITLES[codes[0]]} (`{codes[0]}`)." if len(codes) == 1 else f"One of {told}.",
        "headers": _headers(headers),
        "content": {"application/problem+json": _content({"$ref": REF + "Problem"}) | {"examples": examples}},
    }


def _example(code: str) -> dict[str, Any]:
    return {
        "type": f"/docs#problem-{code}", "title": TITLES[code], "status": STATUS[code], "detail": f"{TITLES[code]}.", "instance": f"{ROOT}/bookings",
        "code": code, "request_id": "req_5f0c6f1f3a7e4b1d9c2e8a40", "errors": [],
    }  # fmt: skip


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


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
    "examples": ["booking:1372.25"],
}
_KEY: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": "^[ -~]+$",
    "examples": ["6f1c9a52-order-18"],
}
_ANYWHERE: Final = ("unauthenticated", "insufficient_scope", "rate_limited", "internal", "unavailable", "timeout", "validation_failed", "malformed")  # fmt: skip
_LIMITS: Final = ("X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy")  # fmt: skip
_HEADER_OF: Final = {
    "unauthenticated": "WWW-Authenticate",
    **dict.fromkeys(("rate_limited", "unavailable", "position_not_reached", "idempotency_in_flight"), "Retry-After"),
}
_ETAGS: Final = {
    "type": "string",
    "pattern": '^(\\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$',
    "examples": ['"3"'],
}
_ONCE: Final = "Under one key a request is done once; the stored answer is given again."
_PARAMETERS: Final = {
    "IdempotencyKey": _header("Idempotency-Key", _ONCE, _KEY),
    "IdempotencyKeyRequired": _header("Idempotency-Key", _ONCE, _KEY, required=True),
    "IfMatch": _header("If-Match", "Does it only to this version, as an ETag named it.", _ETAGS),
    "IfNoneMatch": _header("If-None-Match", "Answers 304 where the thing is still of this version.", _ETAGS),
    "MinPosition": _header(
        "Kalends-Min-Position", "Waits until the write is seen whose Kalends-Position this was.", _POSITION
    ),
    "RequestId": _header("X-Request-Id", "Echoed, and found in the logs, where it has 1 to 128 printable characters."),
}


def _told(description: str, kind: str = "string", *, always: bool = False) -> dict[str, Any]:
    return {"description": description, "required": always, "schema": {"type": kind}}


_HEADERS: Final = {
    "X-Request-Id": _told("The request's id.", always=True),
    "ETag": _told("The thing's version.", always=True),
    "Location": _told("Where the thing is.", always=True),
    "Kalends-Position": _told("The write's place; opaque."),
    "Idempotent-Replayed": _told("`true` where this is the stored answer to an earlier request."),
    "Retry-After": _told("Seconds until it is worth another try.", "integer"),
    "WWW-Authenticate": _told("The scheme of the key.", always=True),
    "X-RateLimit-Limit": _told("Requests of the window with the smallest fraction left.", "integer"),
    "X-RateLimit-Remaining": _told("How many of them are left.", "integer"),
    "X-RateLimit-Reset": _told("Seconds until it begins anew.", "integer"),
    "RateLimit": _told("The same, as the IETF's draft has it."),
    "RateLimit-Policy": _told("The key's windows, as that draft has them."),
}
_FIELD: Final = {
    "type": "object",
    "description": "What is wrong with one member or parameter.",
    "required": ["pointer", "code", "detail"],
    "properties": {
        "pointer": {"type": "string", "description": "`#/hosts/0/host_id` in a body, `?start` in a query."},
        "code": _text(),
        "detail": _text(),
        "rule": _text(),
    },
}
_FIELDS: Final = {"type": "array", "items": {"$ref": REF + "ProblemField"}}
_QUERY_REFUSAL: Final = {
    "type": "object",
    "description": "In the place of an answer: why there is none.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "detail", "errors"],
            "properties": {"code": _text(), "detail": _text(), "errors": _FIELDS},
        }
    },
}
_EVENT_DATA: Final = {
    "type": "object",
    "additionalProperties": True,
    "description": "By `type`: `booking, event_type, host, location, previous` of a booking, with `payment` or `recording` where it is about that;"
    " `hold`; `event`; `calendar`; `webhook, reason`; `person`.",
}
_PROBLEM: Final = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "errors"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": _text(),
        "status": {"type": "integer"},
        "detail": _text(),
        "instance": {"type": "string", "format": "uri-reference"},
        "code": {"type": "string", "enum": sorted(STATUS)},
        "request_id": _text(),
        "errors": _FIELDS,
        "rule": {"type": "string", "description": "Of a refused start: the rule that refuses it."},
        "alternatives": {
            "description": "Of a refused start: the next ones offered.",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["start_at", "end_at"],
                "properties": {
                    "start_at": {"type": "string", "format": "date-time"},
                    "end_at": {"type": "string", "format": "date-time"},
                },
            },
        },
        "state": {"description": "Of `invalid_state`: the state that it is in.", "type": "string"},
        "by": {"description": "Of `in_use`: the id of what refers to it.", "type": "string"},
    },
    "additionalProperties": True,
}


def operations(paths: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of a document, in its order."""
    for path, item in paths.items():
        for method, operation in item.items():
            yield method.upper(), path, operation
