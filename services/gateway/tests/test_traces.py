"""One trace id from the door into a service, over two processes."""

from pathlib import Path

import msgspec
from gateway_kit import Serve, Start, Under, bootstrap

from kalends_shared import telemetry, tracing
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.settings import Settings


async def test_a_request_and_its_call_are_one_trace(
    own_environment: dict[str, str], start: Start, under: Under, serve: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "spans.jsonl"
    secret = (await bootstrap(own_environment))["api_key"]
    gateway = await start(more={"KALENDS_TRACE_EXPORTER": "file", "KALENDS_TRACE_FILE": str(file)})

    async def handle(_: Call) -> Reply:
        return Reply(body=b"{}")

    await serve("booking", get_booking=handle)
    telemetry.use_tracer(
        tracing.make_tracer("booking", "booking", Settings(trace_exporter="file", trace_file=str(file)))
    )
    try:
        await under(gateway, secret)("GET", "/bookings/bkg_1")
    finally:
        telemetry.shutdown()
    await gateway.end()
    found = {span["name"]: span for span in map(msgspec.json.decode, file.read_bytes().splitlines())}
    door, call, work = found["http GET /bookings/{id}"], found["call booking.get_booking"], found["rpc get_booking"]
    assert door["trace_id"] == call["trace_id"] == work["trace_id"]
    assert (call["parent_id"], work["parent_id"]) == (door["span_id"], call["span_id"])
    assert (door["service"], work["service"]) == ("kalends-gateway", "kalends-booking")
