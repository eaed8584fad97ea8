"""The gateway's settings."""

from typing import Annotated

from msgspec import Meta

from kalends_shared.contracts import checks
from kalends_shared.settings import Port, ServiceSettings


class GatewaySettings(ServiceSettings, frozen=True, kw_only=True):
    """What the gateway has besides."""

    http_host: Annotated[str, Meta(description="The address of the public API.")] = "127.0.0.1"
    http_port: Annotated[Port, Meta(description="The port of the public API; 0 takes a free one.")] = 8080
    redis_url: Annotated[
        str, Meta(description="Redis or Valkey, which counts requests against their limits.", extra={"secret": True})
    ] = "redis://127.0.0.1:6379/0"
    request_seconds: Annotated[
        float, Meta(gt=0, le=60, description="How long a request may take before it is answered with 504.")
    ] = 10.0
    body_limit: Annotated[int, Meta(ge=1024, description="The most bytes that a request's body may have.")] = 256 * 1024
    key_prefix: Annotated[
        str, Meta(pattern="^[a-z0-9]{1,16}$", description="What API keys begin with, before _live_ and _test_.")
    ] = "kal"
    key_lease_seconds: Annotated[
        float,
        Meta(gt=0, le=60, description="How long a key holds in memory, and a revocation waits for a silent gateway."),
    ] = 1.0
    rate_limit_seconds: Annotated[
        float, Meta(gt=0, le=60, description="How long counting a request may take before it is let through uncounted.")
    ] = 0.25
    streams: Annotated[int, Meta(ge=0, description="The most streams of changes a process holds open.")] = 2_000
    stream_seconds: Annotated[
        float, Meta(gt=0, description="A stream of changes ends after so long at most, after half of it at least.")
    ] = 3_600.0


class BootstrapSettings(GatewaySettings, frozen=True, kw_only=True):
    """What `bootstrap` has besides: the first account of an installation, and its key."""

    bootstrap_key: Annotated[
        str | None, Meta(description="A key to be kept if it opens the account still.", extra={"secret": True})
    ] = None
    api_key: Annotated[
        str | None, Meta(description="The same, by the name that clients use.", extra={"secret": True})
    ] = None
    account_name: Annotated[str, Meta(description="The account's name.")] = "Demo"
    account_slug: Annotated[
        str, Meta(pattern="^[a-z0-9-]{1,64}$", description="By which the account is found again.")
    ] = "demo"
    account_timezone: Annotated[str, Meta(description="The account's time zone.")] = "UTC"

    def __post_init__(self) -> None:
        for _, problem in checks.zone(self.account_timezone):
            raise ValueError(f"KALENDS_ACCOUNT_TIMEZONE: {self.account_timezone!r} {problem}")
