"""Recorded spans, by OpenTelemetry's SDK; imported only where an exporter is set (see telemetry)."""

import os
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from kalends_shared.settings import Settings

# How a kind of unit stands in a trace; any other is internal work.
KINDS: Final = {
    "http": SpanKind.SERVER,
    "rpc": SpanKind.SERVER,
    "call": SpanKind.CLIENT,
    "attempt": SpanKind.CLIENT,
    "consume": SpanKind.CONSUMER,
}


class RecordedSpan:
    """A span under way, with its ids as W3C writes them."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        self.span_id = f"{context.span_id:016x}"

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def end(self, outcome: str, fields: dict[str, Any], error: BaseException | None) -> None:
        self._span.set_attributes(
            {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in fields.items()}
        )
        self._span.set_attribute("outcome", outcome)
        if outcome == "error" and error is not None:
            self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._span.end()


class _GivenTraceId(RandomIdGenerator):
    """Gives a root the trace id that stands in the logs already."""

    given = 0

    def generate_trace_id(self) -> int:
        return self.given or super().generate_trace_id()


class OtelTracer:
    """Makes spans whose trace and parent were chosen by telemetry, which has sampled already."""

    def __init__(self, service: str, process: str, exporter: SpanExporter, *, batch: bool) -> None:
        self._ids = _GivenTraceId()
        resource = Resource.create(
            {"service.name": f"kalends-{service}", "service.instance.id": process, "process.pid": os.getpid()}
        )
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource,
            span_limits=SpanLimits(max_attributes=64),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter) if batch else SimpleSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("kalends")

    def start(self, kind: str, name: str, trace_id: str, parent_id: str | None) -> RecordedSpan:
        context = Context()
        self._ids.given = int(trace_id, 16)
        if parent_id is not None:
            parent = SpanContext(self._ids.given, int(parent_id, 16), is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(parent), context)
        return RecordedSpan(
            self._tracer.start_span(f"{kind} {name}", context=context, kind=KINDS.get(kind, SpanKind.INTERNAL))
        )

    def close(self) -> None:
        self._provider.shutdown()


class FileExporter(SpanExporter):
    """Appends a JSON line a span; processes may share the file, as each line is one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            os.write(self._file, msgspec.json.encode(_plain(span)) + b"\n")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        os.close(self._file)


class OtlpExporter(SpanExporter):
    """Posts OTLP over HTTP in its JSON form, from the batch processor's own thread."""

    def __init__(self, endpoint: str, timeout: float = 5.0) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"the trace endpoint is no http address: {endpoint}")
        self._endpoint, self._timeout = endpoint, timeout

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        body = msgspec.json.encode(
            {
                "resourceSpans": [
                    {
                        "resource": {"attributes": _attributes(spans[0].resource.attributes)},
                        "scopeSpans": [{"scope": {"name": "kalends"}, "spans": [_otlp(span) for span in spans]}],
                    }
                ]
            }
        )
        request = urllib.request.Request(self._endpoint, body, {"Content-Type": "application/json"})  # noqa: S310 - judged in __init__
        try:
            with urllib.request.urlopen(request, timeout=self._timeout):  # noqa: S310 - judged in __init__
                return SpanExportResult.SUCCESS
        except OSError:
            return SpanExportResult.FAILURE


def make_tracer(service: str, process: str, settings: Settings) -> OtelTracer:
    """The tracer that the settings name.

    Raises:
        ValueError: exporter `file` without a file, or an endpoint that is no http address.
    """
    if settings.trace_exporter == "file":
        if settings.trace_file is None:
            raise ValueError("KALENDS_TRACE_EXPORTER is file, but KALENDS_TRACE_FILE is not set")
        return OtelTracer(service, process, FileExporter(Path(settings.trace_file)), batch=False)
    return OtelTracer(service, process, OtlpExporter(settings.trace_endpoint), batch=True)


def _plain(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context() or INVALID_SPAN_CONTEXT
    return {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "service": span.resource.attributes.get("service.name"),
        "process": span.resource.attributes.get("service.instance.id"),
        "name": span.name,
        "kind": span.kind.name.lower(),
        "start_ns": span.start_time,
        "end_ns": span.end_time or time.time_ns(),
        "ok": span.status.status_code is not StatusCode.ERROR,
        "attributes": dict(span.attributes or {}),
    }


def _otlp(span: ReadableSpan) -> dict[str, Any]:
    plain = _plain(span)
    return {
        "traceId": plain["trace_id"],
        "spanId": plain["span_id"],
        "parentSpanId": plain["parent_id"] or "",
        "name": plain["name"],
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(plain["start_ns"]),
        "endTimeUnixNano": str(plain["end_ns"]),
        "attributes": _attributes(plain["attributes"]),
        "status": {} if plain["ok"] else {"code": 2},
    }


def _attributes(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
    return {"stringValue": str(value)}
