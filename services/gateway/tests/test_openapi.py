"""The OpenAPI document and its pages."""

import re

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
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(described).decode()))
    assert references
    for reference in references:
        at = described
        for part in reference.split("/"):
            at = at[part]


def test_path_parameters_are_declared_and_bodies_closed() -> None:
    described = document()
    for _, path, operation in operations(described["paths"]):
        declared = [p["name"] for p in operation["parameters"] if p.get("in") == "path"]
        assert declared == re.findall(r"\{(\w+)\}", path)
    schemas = described["components"]["schemas"]
    assert schemas["BookingIn"]["additionalProperties"] is False
    assert schemas["BookingIn"]["required"] == ["event_type_id", "start_at", "booker_name", "booker_email"]
    assert set(schemas["Booking"]["required"]) == set(schemas["Booking"]["properties"]), (
        "in an answer every field is present"
    )
    assert schemas["BookingIn"]["properties"]["metadata"]["default"] == {}


def test_the_examples_are_what_a_service_would_take() -> None:
    for kind, example in BODIES.items():
        decode(msgspec.json.encode(example), kind)
    bodies = {e.body for e in ENDPOINTS if e.body is not None and e.method == "POST"}
    without = {kind.__name__ for kind in bodies - BODIES.keys()}
    assert without <= {"Reason", "RotateIn"}, "bodies of which nothing is required"
