"""What is known of a request while it is served, from the door to its answer."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from kalends_gateway.http.request import Body, Head
from kalends_gateway.identity import Identity
from kalends_shared.telemetry import Unit


class Visit(Struct):
    """A request under way; it has an identity once its key has opened the door."""

    head: Head
    request_id: str
    body: Body
    unit: Unit
    identity: Identity | None = None


def visit_of(scope: Mapping[str, Any]) -> Visit:
    """The visit that the door keeps in the state of an ASGI scope."""
    visit: Visit = scope["state"]["visit"]
    return visit
