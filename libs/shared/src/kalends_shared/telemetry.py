"""What a process tells of itself: one structured log line a unit of work, metrics, and traces that cross processes.

A unit of work (a request, a call, a batch of events, a delivery) is

    with telemetry.unit("rpc", "create_booking", traceparent=call.traceparent, tenant=call.tenant) as unit:
        ...
        telemetry.annotate(booking_id=booking_id)      # from anywhere below, into the one line

which logs one JSON line with its trace id, outcome and duration, counts into `kalends_unit_seconds`, and is a span where
its trace is recorded. A trace id always travels (`traceparent()` is what goes out with a call or an event); spans are
made only where an exporter is set and the trace was chosen, so that an unrecorded unit costs some microseconds.
"""

import logging
import os
import random
import re
import time
import traceback
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgspec
from prometheus_client import Counter, Histogram

from kalends_shared.contracts.errors import KalendsError
from kalends_shared.settings import Settings

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Where Postgres and its driver quote what they were given.
_QUOTED: Final = re.compile(
    r"^DETAIL:.*\n?|(?<=invalid input for query argument )\$\d+: .*|(?<=invalid input syntax for type ).*", re.MULTILINE
)
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

UNITS: Final = Histogram(
    "kalends_unit_seconds", "Units of work by kind, name and outcome.", ["kind", "name", "outcome"], buckets=BUCKETS
)
LOST: Final = Counter("kalends_log_lines_lost_total", "Log lines that could not be written.")
LOGGED: Final = Counter("kalends_log_lines_total", "Log lines by level.", ["level"])


class Span(Protocol):
    """A recorded span, as kalends_shared.tracing makes it."""

    trace_id: str
    span_id: str

    def rename(self, name: str) -> None: ...

    def end(self, outcome: str, fields: dict[str, Any], error: BaseException | None) -> None: ...


class Tracer(Protocol):
    """Makes recorded spans; there is none where no exporter is set."""

    def start(self, kind: str, name: str, trace_id: str, parent_id: str | None) -> Span: ...

    def close(self) -> None: ...


class _Process:
    """What `setup` has set for this process."""

    service = "kalends"
    name = "kalends"
    level = LEVELS["info"]
    ratio = 0.0
    tracer: Tracer | None = None


_current: ContextVar["Unit | None"] = ContextVar("kalends_unit", default=None)
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def setup(service: str, settings: Settings) -> None:
    """Sets up logs and traces of this process; `shutdown` writes out what is left of them."""
    _Process.service = service
    _Process.name = settings.process_name or service
    _Process.level = LEVELS[settings.log_level]
    logging.basicConfig(handlers=[_Bridge()], level=max(_Process.level, logging.WARNING), force=True)
    logging.captureWarnings(capture=True)
    if settings.trace_exporter != "none":
        from kalends_shared.tracing import make_tracer  # OpenTelemetry costs 10 MB where it is not used

        _Process.tracer = make_tracer(service, _Process.name, settings)
        _Process.ratio = settings.trace_ratio


def use_tracer(tracer: Tracer | None, ratio: float = 1.0) -> None:
    """Sets the tracer of this process, which tests do."""
    _Process.tracer, _Process.ratio = tracer, ratio


def shutdown() -> None:
    if _Process.tracer is not None:
        _Process.tracer.close()
        _Process.tracer = None


class Unit:
    """One unit of work, as a context manager; `fields` are those of its line. Its outcome is `ok`, an error's code, or `error`."""

    __slots__ = (
        "_span",
        "_started",
        "_token",
        "fields",
        "kind",
        "name",
        "outcome",
        "parent_id",
        "quiet",
        "recorded",
        "trace_id",
    )

    def __init__(
        self, kind: str, name: str, traceparent: str | None, fields: dict[str, Any], *, quiet: bool = False
    ) -> None:
        self.kind, self.name, self.fields, self.quiet = kind, name, fields, quiet
        self.outcome = "ok"
        self.parent_id: str | None = None
        if traceparent and (found := _TRACEPARENT.fullmatch(traceparent)):
            self.trace_id, self.parent_id = found[1], found[2]
            self.recorded = _Process.tracer is not None and bool(int(found[3], 16) & 1)
        elif (outer := _current.get()) is not None:
            self.trace_id, self.parent_id, self.recorded = outer.trace_id, outer.span_id, outer.recorded
        else:
            self.trace_id = f"{random.getrandbits(128) or 1:032x}"
            self.recorded = _Process.tracer is not None and random.random() < _Process.ratio
        self._span: Span | None = None
        self._token: Token[Unit | None] | None = None
        self._started = 0.0

    @property
    def span_id(self) -> str:
        """This unit's own span, or, unrecorded, the caller's, which then passes through as W3C Trace Context asks."""
        if self._span is not None:
            return self._span.span_id
        if self.parent_id is None:
            self.parent_id = f"{random.getrandbits(64) or 1:016x}"
        return self.parent_id

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.recorded else '00'}"

    def rename(self, name: str) -> None:
        """Names it once its name is known, as a request's is when it has been routed."""
        self.name = name
        if self._span is not None:
            self._span.rename(f"{self.kind} {name}")

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        if self.recorded and _Process.tracer is not None:
            self._span = _Process.tracer.start(self.kind, self.name, self.trace_id, self.parent_id)
        self._token = _current.set(self)
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._started
        level = "info"
        if error is not None:
            self.outcome, level = _judge(error)
            if level == "error":
                self.fields["error"] = told(error)
        if self._token is not None:
            _current.reset(self._token)
        UNITS.labels(self.kind, self.name, self.outcome).observe(seconds)
        if self._span is not None:
            self._span.end(self.outcome, self.fields, error)
        if not self.quiet or level == "error":
            _write(
                level,
                {"kind": self.kind, "name": self.name, "outcome": self.outcome, "ms": round(seconds * 1000, 2)}
                | self.fields,
                self,
            )


def unit(kind: str, name: str, traceparent: str | None = None, **fields: Any) -> Unit:
    """Begins a unit of work: part of the caller's trace, else of the unit that it stands in, else a trace of its own."""
    return Unit(kind, name, traceparent, fields)


def span(kind: str, name: str, **fields: Any) -> Unit:
    """A part of a unit: counted, and a span where the trace is recorded, but no line of its own."""
    return Unit(kind, name, None, fields, quiet=True)


def annotate(**fields: Any) -> None:
    """Adds fields to the line of the unit that is under way."""
    if (current := _current.get()) is not None:
        current.fields.update(fields)


def traceparent() -> str | None:
    """The W3C header that what goes out of the unit under way carries."""
    current = _current.get()
    return current.traceparent if current is not None else None


def trace_id() -> str | None:
    current = _current.get()
    return current.trace_id if current is not None else None


def log(event: str, level: str = "info", **fields: Any) -> None:
    """Logs what is no unit of work: a start, a lost connection, a refused setting."""
    _write(level, {"event": event} | fields, _current.get())


def failed(event: str, error: BaseException, **fields: Any) -> None:
    """Logs an error that ends here, with its traceback."""
    _write("error", {"event": event, "error": told(error)} | fields, _current.get())


def told(error: BaseException, length: int = 4000) -> str:
    """An error's traceback, without what Postgres and its driver quote of rows and values: it may be a person's data."""
    return _QUOTED.sub("", "".join(traceback.format_exception(error)))[-length:]


def brief(error: BaseException) -> str:
    """An error in a line, for what passes by itself; without what `told` leaves out."""
    return _QUOTED.sub("", f"{type(error).__name__}: {error}").strip()


def _judge(error: BaseException) -> tuple[str, str]:
    """(outcome, level). A refusal is an answer like any other; only what we broke is an error."""
    if isinstance(error, KalendsError):
        return error.code, "error" if error.code == "internal" else "info"
    if isinstance(error, Exception):
        return "error", "error"
    return "cancelled", "info"


def _write(level: str, fields: dict[str, Any], current: Unit | None) -> None:
    if LEVELS[level] < _Process.level:
        return
    LOGGED.labels(level).inc()
    head = {"time": datetime.now(UTC), "level": level, "service": _Process.service, "process": _Process.name}
    if current is not None:
        head["trace_id"] = current.trace_id
    try:
        os.write(2, _encode(head | fields) + b"\n")
    except OSError:  # nobody reads any more; that must not fail the work itself
        LOST.inc()


class _Bridge(logging.Handler):
    """Brings what libraries log into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        level = (
            "error" if record.levelno >= logging.ERROR else "warning" if record.levelno >= logging.WARNING else "info"
        )
        fields: dict[str, Any] = {"event": record.getMessage(), "logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = told(record.exc_info[1])
        _write(level, fields, _current.get())
