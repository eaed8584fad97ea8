"""Units of work: their line, their count, their trace; and traces as exporters write them."""

import asyncio
import http.server
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from prometheus_client import REGISTRY

from kalends_shared import telemetry, tracing
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.settings import Settings

CALLER = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]


@pytest.fixture
def spans(tmp_path: Path) -> Iterator[Any]:
    """Records spans into a file; gives what reads them."""
    file = tmp_path / "spans.jsonl"
    settings = Settings(trace_exporter="file", trace_file=str(file))
    telemetry.use_tracer(tracing.make_tracer("probe", "probe-1", settings))
    yield lambda: [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    telemetry.shutdown()


def test_a_unit_is_one_line_with_all_that_was_added(capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry.unit("probe", "work", CALLER, tenant="acc_1-live"):
        telemetry.annotate(booking="bkg_1")
    (line,) = lines(capfd)
    wanted = {
        "level": "info",
        "kind": "probe",
        "name": "work",
        "outcome": "ok",
        "tenant": "acc_1-live",
        "booking": "bkg_1",
        "trace_id": "ab" * 16,
    }
    assert wanted.items() <= line.items()
    assert line["ms"] >= 0


def test_a_refusal_is_an_outcome_and_a_fault_an_error_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    def counted() -> float:
        labels = {"kind": "probe", "name": "broken", "outcome": "error"}
        return REGISTRY.get_sample_value("kalends_unit_seconds_count", labels) or 0

    before = counted()
    with pytest.raises(KalendsError), telemetry.unit("probe", "refused"):
        raise KalendsError("slot_taken")
    with pytest.raises(ValueError, match="boom"), telemetry.unit("probe", "broken"):
        raise ValueError("boom")
    refused, broken = lines(capfd)
    assert (refused["outcome"], refused["level"]) == ("slot_taken", "info")
    assert (broken["outcome"], broken["level"]) == ("error", "error")
    assert "ValueError: boom" in broken["error"]
    assert counted() == before + 1


async def test_trace_ids_travel_although_nothing_is_recorded() -> None:
    seen: list[str | None] = []

    async def below() -> None:
        with telemetry.span("call", "x"):
            seen.append(telemetry.traceparent())

    with telemetry.unit("probe", "root", CALLER):
        await asyncio.gather(below(), asyncio.create_task(below()))
    assert seen == ["00-" + "ab" * 16 + "-" + "cd" * 8 + "-00"] * 2, "unrecorded, the caller's own span passes through"
    assert telemetry.traceparent() is None
    with telemetry.unit("probe", "a") as one, telemetry.unit("probe", "b") as inner:
        assert inner.trace_id == one.trace_id
    with telemetry.unit("probe", "c") as other:
        assert other.trace_id != one.trace_id


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        "00-" + "0" * 32 + "-" + "cd" * 8 + "-01",
        "00-" + "ab" * 16 + "-" + "0" * 16 + "-01",
        CALLER.upper(),
        CALLER + "-x",
    ],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(bad: str) -> None:
    with telemetry.unit("probe", "x", bad) as unit:
        assert len(unit.trace_id) == 32
        assert unit.trace_id not in {"ab" * 16, "0" * 32}


def test_recorded_spans_form_one_trace(spans: Any) -> None:
    with telemetry.unit("http", "root", tenant="t") as root, telemetry.span("call", "service.method") as call:
        out = telemetry.traceparent()
    with telemetry.unit("rpc", "method", out), pytest.raises(ValueError, match="x"), telemetry.unit("attempt", "deep"):
        raise ValueError("x")
    found = {span["name"]: span for span in spans()}
    assert {span["trace_id"] for span in found.values()} == {root.trace_id}
    assert found["http root"]["parent_id"] is None
    assert found["call service.method"]["parent_id"] == found["http root"]["span_id"] == root.span_id
    assert found["rpc method"]["parent_id"] == call.span_id
    assert found["attempt deep"]["parent_id"] == found["rpc method"]["span_id"]
    assert (found["attempt deep"]["ok"], found["rpc method"]["ok"]) == (False, True)
    assert found["http root"]["attributes"] == {"tenant": "t", "outcome": "ok"}
    assert (found["http root"]["service"], found["rpc method"]["kind"]) == ("kalends-probe", "server")


def test_the_callers_choice_and_the_ratio_decide_what_is_recorded(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with telemetry.unit("http", "unwanted", CALLER[:-1] + "0"):
        pass
    with telemetry.unit("http", "wanted", CALLER):
        pass
    tracer = telemetry._Process.tracer
    telemetry.use_tracer(tracer, 0.0)
    with telemetry.unit("http", "root"):
        pass
    telemetry.use_tracer(tracer, 0.25)
    shares = iter([0.1, 0.25, 0.3, 0.2] * 100)  # of which two are below the ratio
    monkeypatch.setattr(random, "random", lambda: next(shares))
    for _ in range(400):
        with telemetry.unit("http", "sampled"):
            pass
    names = [span["name"] for span in spans()]
    assert names[0] == "http wanted"
    assert names.count("http sampled") == 200
    assert len(names) == 1 + names.count("http sampled")


def test_otlp_goes_out_as_json() -> None:
    got: list[Any] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    telemetry.use_tracer(tracing.make_tracer("probe", "p", Settings(trace_exporter="otlp", trace_endpoint=endpoint)))
    with telemetry.unit("http", "root", tries=3) as unit:
        pass
    telemetry.shutdown()
    server.shutdown()
    server.server_close()
    (path, body) = got[0]
    span = body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert path == "/v1/traces"
    assert (span["traceId"], span["name"], span["kind"], span["parentSpanId"]) == (unit.trace_id, "http root", 2, "")
    assert {"key": "tries", "value": {"intValue": "3"}} in span["attributes"]


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("duplicate key value\nDETAIL:  Key (email)=(ada@example.test) already exists.", "duplicate key value"),
        ("invalid input for query argument $3: 'ada@example.test' (expected int)", "invalid input for query argument"),
        ('invalid input syntax for type json: "ada@example.test"', "invalid input syntax for type"),
    ],
)
def test_what_postgres_quotes_is_not_logged(message: str, kept: str):
    for text in (telemetry.told(asyncpg.PostgresError(message)), telemetry.brief(asyncpg.PostgresError(message))):
        assert kept in text
        assert "ada@example.test" not in text
