"""Settings: one typed, described tree a process, read from the environment and validated once, before anything is opened.

A field `nats_url` is read from `KALENDS_NATS_URL`, or, where `KALENDS_NATS_URL_FILE` names a file, from that file:
so a secret need never stand in an environment. Lists are separated by commas. What is wrong is told all at once.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

PREFIX: Final = "KALENDS_"

Port = Annotated[int, Meta(ge=0, le=65535)]
# What services have that call addresses which tenants have chosen.
SecretKeys = Annotated[
    str,
    Meta(
        description="Base64 of 32 bytes that seal secrets at rest; older ones after it, by commas.",
        extra={"secret": True},
    ),
]
Networks = Annotated[
    tuple[str, ...], Meta(description="Networks (CIDR) that may be called although they are not public.")
]


class SettingsError(Exception):
    """What is wrong with the environment, one line a variable."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every process has. A service adds its own by inheriting."""

    process_name: Annotated[
        str, Meta(description="What this process calls itself; the service's name where empty.")
    ] = ""
    run_dir: Annotated[str | None, Meta(description="A folder into which the addresses it listens on are written.")] = (
        None
    )
    ops_host: Annotated[str, Meta(description="The address of /health and /metrics.")] = "127.0.0.1"
    ops_port: Annotated[Port, Meta(description="The port of /health and /metrics; 0 takes a free one.")] = 0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")
    ] = "info"
    trace_exporter: Annotated[
        Literal["none", "file", "otlp"],
        Meta(description="Where spans go; trace ids travel and are logged in any case."),
    ] = "none"
    trace_file: Annotated[
        str | None, Meta(description="The file of exporter `file`: a JSON line a span, appended.")
    ] = None
    trace_endpoint: Annotated[str, Meta(description="The collector of exporter `otlp`.")] = (
        "http://127.0.0.1:4318/v1/traces"
    )
    trace_ratio: Annotated[
        float,
        Meta(ge=0, le=1, description="The share of traces begun here that is recorded; a caller's own choice is kept."),
    ] = 1.0
    shutdown_seconds: Annotated[
        float, Meta(gt=0, description="How long work in flight may take to end after SIGTERM.")
    ] = 15.0
    drain_seconds: Annotated[
        float, Meta(ge=0, description="How long it serves on after SIGTERM as not ready, for load balancers to notice.")
    ] = 0.0

    def __repr__(self) -> str:
        shown = {name: "***" if _is_secret(kind) else getattr(self, name) for name, kind in _fields(type(self)).items()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class ServiceSettings(Settings, frozen=True, kw_only=True):
    """What every service of the data plane has: its database and the message bus."""

    database_url: Annotated[
        str, Meta(description="PostgreSQL, `postgresql://...`; may be a pooler.", extra={"secret": True})
    ]
    database_direct_url: Annotated[
        str | None, Meta(description="PostgreSQL without a pooler, for session locks.", extra={"secret": True})
    ] = None
    database_pool: Annotated[int, Meta(ge=1, le=100, description="Connections to PostgreSQL a process.")] = 5
    nats_url: Annotated[
        str, Meta(description="NATS, `nats://host:port`, several by commas.", extra={"secret": True})
    ] = "nats://127.0.0.1:4222"

    @property
    def direct_url(self) -> str:
        return self.database_direct_url or self.database_url


T = TypeVar("T", bound=Settings)


def load(kind: type[T], environ: Mapping[str, str] = os.environ) -> T:
    """Reads and validates the settings.

    Raises:
        SettingsError: naming every variable that is missing or wrong.
    """
    given: dict[str, Any] = {}
    wrong: list[str] = []
    for field in msgspec.structs.fields(kind):
        name = PREFIX + field.name.upper()
        try:
            text = read(name, environ)
            if text is None:
                if field.required:
                    wrong.append(f"{name} is required: {_description(field.type)}")
                continue
            given[field.name] = msgspec.convert(_split(text, field.type), field.type, strict=False)
        except msgspec.ValidationError as error:
            wrong.append(f"{name}: {error}")
        except (OSError, UnicodeDecodeError) as error:
            wrong.append(f"{name}_FILE cannot be read: {error}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    try:
        return kind(**given)
    except ValueError as error:  # of its __post_init__, which finds what types cannot tell
        raise SettingsError(str(error)) from error


def describe(kind: type[Settings]) -> str:
    """The settings as a commented file of `NAME=default` lines, to be copied and changed."""
    lines: list[str] = []
    hints = _fields(kind)
    for field in msgspec.structs.fields(kind):
        name = PREFIX + field.name.upper()
        default = "" if field.required or field.default is None else _text(field.default)
        secret = f" Or {name}_FILE, a file that holds it." if _is_secret(hints[field.name]) else ""
        required = " Required." if field.required else ""
        lines += [
            f"# {_description(hints[field.name])}{required}{secret}",
            f"{'' if field.required else '#'}{name}={default}",
            "",
        ]
    return "\n".join(lines)


def read(name: str, environ: Mapping[str, str]) -> str | None:
    """One setting's text: of the file that `<name>_FILE` names, else of the variable; None where neither is set.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    if path := environ.get(name + "_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    text = environ.get(name)
    return text or None


def _split(text: str, kind: Any) -> Any:
    """Lists are told from text by their type; an optional list is written with its union last."""
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    is_list = get_origin(inner) in (list, tuple, frozenset, set)
    return [part.strip() for part in text.split(",") if part.strip()] if is_list else text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, frozenset)) else str(value)


def _fields(kind: type[Settings]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _metas(kind: Any) -> list[Meta]:
    return [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]


def _is_secret(kind: Any) -> bool:
    return any((meta.extra or {}).get("secret") for meta in _metas(kind))


def _description(kind: Any) -> str:
    return next((meta.description for meta in _metas(kind) if meta.description), "")
