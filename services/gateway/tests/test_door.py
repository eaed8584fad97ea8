"""What the door does with every request before and after a service sees it."""

import asyncio
import gzip
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from gateway_kit import Api, Keyed, Running, Serve, Start, Under, bootstrap, problem

from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.endpoints import ENDPOINTS, Endpoint
from kalends_shared.contracts.errors import FieldError, KalendsError
from kalends_shared.contracts.events import Actor
from kalends_shared.testkit.waiting import eventually_async

GONE = "01jv0000000000000000000000"
# For each need, the keys that lack it and those that have it.
POOR = {
    "read": ["webhooks"],
    "write": ["read", "webhooks"],
    "webhooks": ["read", "write"],
    "hooks": [],
    "admin": ["read", "write", "webhooks"],
    "any": [],
}
RICH = {
    "read": ["read", "write", "admin"],
    "write": ["write", "admin"],
    "webhooks": ["webhooks", "admin"],
    "hooks": ["read", "write", "webhooks", "admin"],
    "admin": ["admin"],
    "any": ["read", "write", "webhooks", "admin"],
}


def path_of(endpoint: Endpoint) -> str:
    return endpoint.path.replace("{id}", f"xyz_{GONE}")


async def echo(_: Call) -> Reply:
    return Reply(body=b"{}")


async def seventh(_: Call) -> Reply:
    return Reply(body=b"{}", etag='"7"')


async def test_scope_is_judged_before_existence_at_every_endpoint(keyed: Keyed) -> None:
    keys = {scope: await keyed(scope) for scope in ("read", "write", "webhooks", "admin")}
    for endpoint in ENDPOINTS:
        for scope in POOR[endpoint.needs]:
            body = {} if endpoint.method in {"POST", "PATCH"} else None
            answer = await keys[scope](endpoint.method, path_of(endpoint), body, headers={"Idempotency-Key": "k"})
            problem(answer, 403, "insufficient_scope")


async def test_every_endpoint_needs_a_key_and_leads_to_its_service(
    gateway: Running, keyed: Keyed, serve: Serve, under: Under
) -> None:
    keys = {scope: await keyed(scope) for scope in ("read", "write", "webhooks", "admin")}
    nobody = under(gateway, None)
    elsewhere = [endpoint for endpoint in ENDPOINTS if endpoint.service != "gateway"]
    calls = {
        service: await serve(service, **{e.rpc: echo for e in elsewhere if e.service == service})
        for service in {e.service for e in elsewhere}
    }
    for endpoint in ENDPOINTS:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        problem(await nobody(endpoint.method, path_of(endpoint), headers=headers), 401, "unauthenticated")
    for endpoint in elsewhere:
        for scope in RICH[endpoint.needs]:
            headers = {"Idempotency-Key": str(uuid.uuid4())}
            answer = await keys[scope](
                endpoint.method,
                path_of(endpoint),
                {} if endpoint.method in {"POST", "PATCH"} else None,
                headers=headers,
            )
            assert answer.status_code == 200, (endpoint, answer.text)
            call = calls[endpoint.service].pop()
            assert (call.method, call.path) == (endpoint.method, path_of(endpoint))
            assert call.params == ({"id": f"xyz_{GONE}"} if "{" in endpoint.path else {})


async def test_a_call_says_who_asks_and_what(keyed: Keyed, serve: Serve) -> None:
    calls = await serve("booking", cancel_booking=echo, list_bookings=echo)
    key = await keyed("write", mode="test", name="Till")
    account = (await key("GET", "/me")).json()["id"]
    began = datetime.now(UTC)
    headers = {
        "X-Request-Id": "mine-1", "Idempotency-Key": "k" * 255, "If-Match": '"3"', "Kalends-Min-Position": "booking:12.3, availability:4.5",
        "traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-00",
    }  # fmt: skip
    raw = b'{ "reason" : "\xc3\xa9" }'
    answer = await key.http.post(
        "/bookings/bkg_1/cancel", content=raw, headers=headers | {"Content-Type": "application/json; charset=utf-8"}
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine-1")
    call = calls.pop()
    assert (call.tenant, call.account_id, call.mode, call.timezone) == (f"{account}-test", account, "test", "UTC")
    assert (call.actor.type, call.actor.name, call.scopes) == ("key", "Till", frozenset({"read", "write"}))
    assert (call.request_id, call.idempotency_key, call.if_match, call.min_position) == (
        "mine-1",
        "k" * 255,
        '"3"',
        "booking:12.3,availability:4.5",
    )
    assert (call.body, call.params) == (raw, {"id": "bkg_1"})
    assert call.traceparent is not None
    assert call.traceparent.startswith("00-" + "ab" * 16)
    assert began <= call.now <= datetime.now(UTC)
    assert 0 < call.deadline - time.time() <= 30
    assert not call.frozen_clock
    await key("GET", "/bookings?status=a%2Cb&start_after=2027-01-01T00:00:00 02:00")
    assert calls.pop().query == "status=a%2Cb&start_after=2027-01-01T00:00:00%2002:00"
    assert isinstance(call.actor, Actor)


async def test_an_answer_has_its_headers_and_its_bytes(keyed: Keyed, serve: Serve) -> None:
    async def make(_: Call) -> Reply:
        return Reply(
            status=201,
            body=b'{"n":1.50}',
            etag='"7"',
            location="/locations/loc_1",
            position="availability:5.6",
            headers={"Idempotent-Replayed": "true"},
        )

    async def gone(_: Call) -> Reply:
        return Reply(status=204, position="availability:5.7")

    async def get(_: Call) -> Reply:
        return Reply(body=b"{}", etag='"7"')

    await serve("availability", create_location=make, delete_location=gone, get_location=get)
    key = await keyed("write")
    answer = await key("POST", "/locations", {"name": "x"})
    assert (answer.status_code, answer.content) == (201, b'{"n":1.50}')
    wanted = {
        "etag": '"7"',
        "location": "/api/v1/locations/loc_1",
        "kalends-position": "availability:5.6",
        "idempotent-replayed": "true",
    }
    assert wanted.items() <= dict(answer.headers).items()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    answer = await key("DELETE", "/locations/loc_1")
    assert (answer.status_code, answer.content, answer.headers["kalends-position"]) == (204, b"", "availability:5.7")
    for tag, status in (('"7"', 304), ('W/"7"', 304), ('"6", "7"', 304), ("*", 304), ('"6"', 200)):
        assert (await key("GET", "/locations/loc_1", headers={"If-None-Match": tag})).status_code == status


async def test_a_refusal_is_a_problem_document(keyed: Keyed, serve: Serve) -> None:
    async def refuse(_: Call) -> Reply:
        fields = (FieldError("#/start_at", "slot_taken", "is taken"),)
        raise KalendsError("slot_taken", "That slot is taken.", fields, 2, {"alternatives": [], "status": 1})

    async def strange(_: Call) -> Reply:
        raise KalendsError("never_heard_of", "secret")

    async def broken(_: Call) -> Reply:
        raise RuntimeError("secret")

    await serve("booking", create_booking=refuse, get_booking=strange, get_hold=broken)
    key = await keyed("write")
    answer = await key("POST", "/bookings", {}, headers={"Idempotency-Key": "k"})
    document = problem(answer, 409, "slot_taken", "#/start_at")
    assert answer.headers["retry-after"] == "2"
    assert document["errors"] == [{"pointer": "#/start_at", "code": "slot_taken", "detail": "is taken"}]
    assert (document["alternatives"], document["instance"], document["detail"], document["title"]) == (
        [],
        "/api/v1/bookings",
        "That slot is taken.",
        "Slot taken",
    )
    for path in ("/bookings/bkg_1", "/holds/hld_1"):
        answer = await key("GET", path)
        problem(answer, 500, "internal")
        assert "secret" not in answer.text


async def test_no_such_path_no_such_method(keyed: Keyed) -> None:
    key = await keyed("read")
    for path in (
        "/nowhere",
        "/hosts/hst_1/nowhere",
        "/hosts/",
        "/hosts//",
        "//hosts",
        "/bookings/bkg_1/history/x",
        "/",
    ):
        problem(await key("GET", path), 404, "not_found")
    for method, path in (
        ("PUT", "/hosts"),
        ("DELETE", f"/bookings/bkg_{GONE}"),
        ("PATCH", "/changes"),
        ("POST", "/me"),
        ("OPTIONS", "/me"),
    ):
        answer = await key(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]
    for method in ("PUT", "OPTIONS", "BREW"):
        assert (await key(method, "/hosts")).headers["allow"] == "GET, HEAD, POST"


async def test_head_is_a_get_without_its_body(keyed: Keyed, serve: Serve) -> None:
    calls = await serve("booking", get_booking=seventh)
    key = await keyed("read")
    answer = await key("HEAD", "/bookings/bkg_1")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["etag"], answer.headers["content-length"]) == ('"7"', "2")
    assert calls[-1].method == "GET"
    assert (await key("HEAD", "/bookings/bkg_1", headers={"If-None-Match": '"7"'})).status_code == 304
    assert (await key("HEAD", "/nowhere")).status_code == 404
    assert (await key("HEAD", "/availability/query")).headers["allow"] == "POST"
    await serve("webhooks", list_changes=echo)
    stream = await key("HEAD", "/changes", headers={"Accept": "text/event-stream"})
    assert (stream.status_code, stream.headers["content-type"]) == (200, "application/json"), "a stream has no end"


async def test_no_cache_between_keeps_what_is_an_accounts(keyed: Keyed, serve: Serve) -> None:
    await serve("booking", get_booking=seventh, create_booking=echo)
    key = await keyed("write")
    for held in ({}, {"If-None-Match": '"7"'}):
        answer = await key("GET", "/bookings/bkg_1", headers=held)
        assert answer.headers["cache-control"] == "private, no-cache"
    made = await key("POST", "/bookings", {}, headers={"Idempotency-Key": "k"})
    for answer in (made, await key("GET", "/nowhere"), await key("PUT", "/me")):
        assert answer.headers["cache-control"] == "no-store"


async def test_several_headers_of_a_name_are_one_list(keyed: Keyed, serve: Serve) -> None:
    calls = await serve("booking", get_booking=seventh)
    key = await keyed("read")
    tags = [("If-None-Match", '"6"'), ("If-None-Match", '"7"'), ("If-None-Match", '"8"')]
    assert (await key("GET", "/bookings/bkg_1", headers=tags)).status_code == 304
    assert calls[-1].if_none_match == '"6", "7", "8"'
    for other in ("kal_live_other", key.key):
        two = [("Authorization", f"Bearer {other}"), ("Authorization", f"Bearer {key.key}")]
        async with httpx.AsyncClient(timeout=60) as http:
            problem(await http.get(key.url + "/api/v1/me", headers=two), 401, "unauthenticated")


async def test_no_spelling_of_a_path_leads_around_the_door(gateway: Running) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        for path in ("//api/v1/me", "/api//v1/me", "/api/v1/me/", "/%2Fapi/v1/me", "/x/../api/v1/me", "/api/v1/%2e/me"):
            answer = await http.get(gateway.url + path)
            assert answer.status_code in {401, 404}, path


async def test_unknown_parameters_are_told_where_an_endpoint_has_none(keyed: Keyed, serve: Serve) -> None:
    calls = await serve("availability", get_event_type=echo, create_location=echo)
    key = await keyed("write")
    document = problem(await key("GET", f"/event-types/evt_{GONE}?nonsense=1&x"), 422, "validation_failed", "?nonsense")
    assert [(e["pointer"], e["code"]) for e in document["errors"]] == [
        ("?nonsense", "unknown_field"),
        ("?x", "unknown_field"),
    ]
    problem(await key("POST", "/locations?nonsense=1", {"name": "x"}), 422, "validation_failed", "?nonsense")
    problem(await key("GET", "/me?nonsense=1"), 422, "validation_failed", "?nonsense")
    problem(await key("GET", "/me?a=%ff"), 400, "malformed")
    problem(await key("GET", "/test-clock?nonsense=1"), 422, "validation_failed", "?nonsense")
    assert not calls


async def test_headers_that_are_none(keyed: Keyed, serve: Serve) -> None:
    calls = await serve("booking", create_booking=echo, list_bookings=echo, cancel_booking=echo)
    key = await keyed("write")
    problem(await key("POST", "/bookings", {}), 400, "idempotency_key_required")
    problem(await key("POST", "/holds", {}), 400, "idempotency_key_required")
    for bad in ("", "k" * 256, "é".encode()):
        problem(await key("POST", "/bookings", {}, headers={"Idempotency-Key": bad}), 400, "malformed")
    twice = [("Idempotency-Key", "one"), ("Idempotency-Key", "other")]
    problem(await key.http.post("/bookings", json={}, headers=twice), 400, "malformed")
    for bad in ("3", "", '"3', "W/3", "x", '"3" "4"', '"3",'):
        problem(await key("POST", "/bookings/bkg_1/cancel", headers={"If-Match": bad}), 400, "malformed")
    for bad in ("%%%", "", "booking", "booking:1", "booking:1.2;availability:1.2", "booking:" + "1" * 30 + ".2"):
        problem(await key("GET", "/bookings", headers={"Kalends-Min-Position": bad}), 400, "malformed")
    assert not calls
    for good in ("k" * 255, "~", "a b"):
        assert (await key("POST", "/bookings", {}, headers={"Idempotency-Key": good})).status_code == 200
    assert (await key("POST", "/bookings/bkg_1/cancel")).status_code == 200
    assert calls[-1].body == b""
    for good in ('"3"', 'W/"3"', "*", '"3", W/"4"'):
        assert (await key("POST", "/bookings/bkg_1/cancel", headers={"If-Match": good})).status_code == 200
        assert calls[-1].if_match == good
    problem(await key("GET", "/me", headers={"Kalends-Account": f"acc_{GONE}"}), 403, "insufficient_scope")


async def test_request_ids(keyed: Keyed) -> None:
    key = await keyed("read")
    made = {(await key("GET", "/me")).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert (
        problem(await key("GET", "/nowhere", headers={"X-Request-Id": "a/b:c"}), 404, "not_found")["request_id"]
        == "a/b:c"
    )
    for bad in ("x" * 129, "a b", ""):
        assert (await key("GET", "/me", headers={"X-Request-Id": bad})).headers["x-request-id"].startswith("req_")


async def chunks(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


async def test_bodies_are_bounded_and_json(keyed: Keyed, serve: Serve) -> None:
    calls = await serve("availability", create_location=echo, patch_location=echo)
    key = await keyed("write")
    as_json = {"Content-Type": "application/json"}
    fits = b'"' + b"x" * (256 * 1024 - 2) + b'"'
    assert (await key.http.post("/locations", content=fits, headers=as_json)).status_code == 200
    assert calls.pop().body == fits
    problem(await key.http.post("/locations", content=fits + b" ", headers=as_json), 413, "payload_too_large")
    problem(await key.http.post("/locations", content=b"x" * 5_000_000, headers=as_json), 413, "payload_too_large")
    problem(await key.http.post("/locations", content=chunks(50_000, 100), headers=as_json), 413, "payload_too_large")
    assert (await key.http.post("/locations", content=chunks(1000, 100), headers=as_json)).status_code == 200
    assert len(calls.pop().body) == 100_000
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "multipart/form-data; boundary=x",
    ):
        problem(
            await key.http.post("/locations", content=b"{}", headers={"Content-Type": kind}),
            415,
            "unsupported_media_type",
        )
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON"):
        assert (await key.http.post("/locations", content=b"{}", headers={"Content-Type": kind})).status_code == 200
    assert (
        await key.http.patch(
            "/locations/loc_1", content=b"{}", headers={"Content-Type": "application/merge-patch+json"}
        )
    ).status_code == 200
    assert (
        await key.http.post("/locations", content=gzip.compress(b"{}"), headers=as_json | {"Content-Encoding": "gzip"})
    ).status_code == 415


async def test_a_large_answer_comes_whole(keyed: Keyed, serve: Serve) -> None:
    body = json.dumps({"days": [{"start_at": "2027-01-01T00:00:00Z"}] * 80_000}).encode()

    async def much(_: Call) -> Reply:
        return Reply(body=body)

    await serve("availability", availability=much)
    answer = await (await keyed("read"))("GET", "/event-types/evt_1/availability?start=2027-01-01&end=2027-01-02")
    assert answer.content == body


async def test_a_service_that_is_away_is_503_and_a_slow_one_504(start_impatient: Api, serve: Serve) -> None:
    async def slow(_: Call) -> Reply:
        await asyncio.Event().wait()
        return Reply()

    calls = await serve("booking", approve_booking=slow)

    async def warm() -> bool:
        """It knows the key, so that nothing but what is asked for takes of the two seconds."""
        return (await start_impatient("GET", "/me")).status_code == 200

    await eventually_async(warm)
    answer = await start_impatient("GET", "/hosts")
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    problem(await start_impatient("POST", "/bookings/bkg_1/approve"), 504, "timeout")
    assert len(calls) == 1, "without an Idempotency-Key it is tried once"


@pytest.fixture
async def start_impatient(start: Start, own_environment: dict[str, str], under: Under) -> Api:
    """A gateway that gives a request two seconds."""
    key = (await bootstrap(own_environment))["api_key"]
    return under(await start(more={"KALENDS_REQUEST_SECONDS": "2"}), key)


async def test_a_refusal_before_the_body_was_read_is_heard(gateway: Running, keyed: Keyed, under: Under) -> None:
    nobody, reader = under(gateway, None), await keyed("read")
    for size in (300_000, 5_000_000):
        answer = await nobody.http.post("/locations", content=b"x" * size, headers={"Content-Type": "application/json"})
        problem(answer, 401, "unauthenticated")
        answer = await reader.http.post("/locations", content=b"x" * size, headers={"Content-Type": "application/json"})
        problem(answer, 403, "insufficient_scope")


async def test_what_is_no_http_does_not_hurt(gateway: Running, keyed: Keyed) -> None:
    key = await keyed("read")
    where = urlsplit(gateway.url)
    for raw in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/v1/me HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/hosts HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab",
    ):
        with socket.create_connection((where.hostname, where.port), timeout=30) as one:
            one.sendall(raw)
            one.shutdown(socket.SHUT_WR)
            one.recv(4096)
    assert (await key("GET", "/me")).status_code == 200


async def test_a_request_is_one_line_and_one_trace(gateway: Running, keyed: Keyed, serve: Serve) -> None:
    calls = await serve("booking", get_booking=echo)
    key = await keyed("read")
    await key("GET", "/bookings/bkg_1", headers={"X-Request-Id": (mine := uuid.uuid4().hex)})

    async def logged() -> bool:
        lines[:] = [line for line in gateway.lines() if line.get("request_id") == mine]
        return bool(lines)

    lines: list[dict[str, Any]] = []
    await eventually_async(logged)  # it is written once the answer has gone
    assert len(lines) == 1
    wanted = {"kind": "http", "name": "GET /bookings/{id}", "outcome": "ok", "status": 200, "service": "gateway"}
    assert wanted.items() <= lines[0].items()
    assert calls[0].traceparent is not None
    assert lines[0]["trace_id"] == calls[0].traceparent.split("-")[1]
    assert key.key is not None
    assert key.key not in gateway.log.read_text()
