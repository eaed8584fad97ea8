"""One trace id from a POST, through requests and events, to its webhook's attempt."""

import secrets
from pathlib import Path

import msgspec
from harness.client import Client, booking, slot, until
from harness.sink import Sink
from harness.stack import Stack


def spans(file: Path, trace: str) -> set[tuple[str, str]]:
    """(service, kind of work) of every recorded span of the trace."""
    rows = (msgspec.json.decode(line) for line in file.read_bytes().split(b"\n")[:-1] if trace.encode() in line)
    return {(row["service"].removeprefix("kalends-"), row["name"].split(" ")[0]) for row in rows}


async def test_one_trace_from_the_request_to_the_webhook(stack: Stack, api: Client, receiver: Sink):
    kind = await api.event_type()
    hook = await api.ok("POST", "/webhooks", {"url": receiver.url, "events": ["booking.confirmed"]})
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    answer = await api.call("POST", "/bookings", booking(kind, slot(1)), headers=headers)
    assert answer.status_code == 201

    async def received() -> bool:
        return answer.json()["id"] in receiver.bookings("booking.confirmed")

    await until(received, 180, "the webhook")
    file = stack.folder / "spans.jsonl"

    async def whole() -> bool:
        wanted = {("gateway", "http"), ("availability", "rpc"), ("booking", "rpc"), ("webhooks", "attempt")}
        return wanted <= spans(file, trace)

    await until(whole, 180, f"spans of every service, not only {spans(file, trace)}")
    delivered = next(h for _, h, body in receiver.got if answer.json()["id"].encode() in body)
    assert delivered["traceparent"].split("-")[1] == trace
    await api.ok("DELETE", f"/webhooks/{hook['id']}")
