"""The OpenAPI document and its pages."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
from gateway_kit import Running

from kalends_gateway.http.examples import BODIES
from kalends_gateway.http.openapi import document, operations
from kalends_shared.contracts.decode import decode
from kalends_shared.contracts.endpoints import ENDPOINTS
from kalends_shared.contracts.errors import STATUS


async def test_it_is_served_without_a_key(gateway: Running) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        served = await http.get("/openapi.json")
        assert served.json() == msgspec.json.decode(msgspec.json.encode(document()))
        assert served.headers["content-type"] == "application/json"
        page = await http.get("/docs")
        assert {one.headers["cache-control"] for one in (served, page)} == {"no-cache"}, (
            "another release says other things"
        )
        assert page.headers["content-type"].startswith("text/html")
        for endpoint in ENDPOINTS:
            assert endpoint.path in page.text
        assert all(f'id="problem-{code}"' in page.text for code in STATUS), "where the types of problems lead"
        assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text), "nothing is loaded from elsewhere"
        assert (await http.head("/docs")).status_code == 200
        assert (await http.get("/")).status_code == 404


def test_every_endpoint_is_in_it_and_every_reference_leads_somewhere() -> None:
    described = document()
    found = {(method, path) for method, path, _ in operations(described["paths"])}
    assert found == {(e.method, "/api/v1" + e.path) for e in ENDPOINTS}
    ids = [operation["operationId"] for _, _, operation in operations(described["paths"])]
    assert len(ids) == len(set(ids))
    summaries = [operation["summary"] for _, _, operation in operations(described["paths"])]
    assert [one for one in summaries if re.search(r"\b(a [aeiou]|an [^aeiouA])", one)] == [], "read aloud"
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(described).decode()))
    assert references
    for reference in references:
        at = described
        for part in reference.split("/"):
            at = at[part]


def test_path_parameters_are_declared() -> None:
    for _, path, operation in operations(document()["paths"]):
        declared = [p["name"] for p in operation["parameters"] if p.get("in") == "path"]
        assert declared == re.findall(r"\{(\w+)\}", path)


def test_a_struct_is_described_by_what_it_serves() -> None:
    schemas = document()["components"]["schemas"]
    made, shown, patch = schemas["BookingIn"], schemas["Booking"], schemas["BookingPatch"]
    assert made["required"] == ["event_type_id", "start_at", "booker_name", "booker_email"]
    assert set(shown["required"]) == set(shown["properties"]), "in an answer every field is present"
    assert "required" not in patch
    assert (made["additionalProperties"], patch["additionalProperties"]) == (False, False)
    assert made["properties"]["seats"] == {
        "type": ["integer", "null"], "minimum": 1, "maximum": 10_000, "default": 1,
    }, "what is left out may be null, too"  # fmt: skip
    assert patch["properties"]["booker_name"]["type"] == "string", "what is required cannot be unset"
    assert patch["properties"]["guests"]["items"] == {"$ref": "#/components/schemas/GuestIn"}, (
        "a list is replaced whole"
    )
    assert schemas["GuestIn"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["Guest"]
    assert [schemas[one]["properties"]["email"].get("format") for one in ("GuestIn", "Guest")] == ["email", None], (
        "what we took is not to be judged again"
    )
    window = schemas["EventTypePatch"]["properties"]["booking_window"]
    assert window == {"anyOf": [{"$ref": "#/components/schemas/BookingWindowPatch"}, {"type": "null"}]}
    assert "required" not in schemas["BookingWindow"], "of it an answer has what is set"


def test_patches_are_described_like_any_body() -> None:
    for method, _, operation in operations(document()["paths"]):
        if method == "PATCH":
            content = operation["requestBody"]["content"]
            assert content.keys() == {"application/json", "application/merge-patch+json"}
            assert all(kind["schema"]["$ref"].endswith("Patch") for kind in content.values())


def test_every_object_says_what_may_be_in_it() -> None:
    """Where one says nothing, openapi-typescript takes it for an object that nothing may be in."""
    objects = [one for one in schemas_in(document()) if "object" in one["type"]]
    assert len(objects) > 100
    assert [one for one in objects if not one.keys() & {"properties", "additionalProperties"}] == []


def schemas_in(at: Any) -> Iterator[dict[str, Any]]:
    """Each schema that names its type, wherever it stands."""
    inner: Any = at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
    if isinstance(at, dict) and isinstance(at.get("type"), (str, list)):
        yield at
    for one in inner:
        yield from schemas_in(one)


def test_no_default_is_an_object() -> None:
    """Generators of clients leave out a whole Struct for one."""

    def defaults(of: Any) -> Iterator[Any]:
        if isinstance(of, dict):
            yield from [of["default"]] if "default" in of else []
        for part in of.values() if isinstance(of, dict) else of if isinstance(of, list) else ():
            yield from defaults(part)

    assert not [one for one in defaults(document()["components"]["schemas"]) if isinstance(one, dict)]


def test_refusals_and_headers_are_told() -> None:
    found = {(method, path): operation for method, path, operation in operations(document()["paths"])}
    book = found["POST", "/api/v1/bookings"]
    assert {"201", "400", "401", "403", "409", "413", "415", "422", "429", "500", "503", "504"} == book[
        "responses"
    ].keys()
    assert {"ETag", "Location", "Kalends-Position", "Idempotent-Replayed"} <= book["responses"]["201"]["headers"].keys()
    assert {"Retry-After", "Idempotent-Replayed"} <= book["responses"]["409"]["headers"].keys()
    assert "Idempotent-Replayed" not in book["responses"]["422"]["headers"], "which is never stored"
    assert "Location" in found["POST", "/api/v1/webhooks/{id}/test"]["responses"]["202"]["headers"], "of the delivery"
    assert {"$ref": "#/components/parameters/IdempotencyKeyRequired"} in book["parameters"]
    assert "409" in found["DELETE", "/api/v1/schedules/{id}"]["responses"], "in_use"
    assert "404" in found["GET", "/api/v1/test-clock"]["responses"], "of a live key"


def test_the_examples_are_what_a_service_would_take() -> None:
    for kind, example in BODIES.items():
        decode(msgspec.json.encode(example), kind)
    bodies = {e.body for e in ENDPOINTS if e.body is not None and e.method == "POST"}
    without = {kind.__name__ for kind in bodies - BODIES.keys()}
    assert without <= {"Reason", "RotateIn"}, "bodies of which nothing is required"
