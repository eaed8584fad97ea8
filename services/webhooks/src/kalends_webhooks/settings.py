"""What the operator may set; every name is an environment variable with KALENDS_ before it, in capitals."""

from typing import Annotated, Literal

from msgspec import Meta

from kalends_shared.contracts.webhooks import Profile
from kalends_shared.net import Policy
from kalends_shared.settings import Networks, SecretKeys, ServiceSettings
from kalends_webhooks.delivery.dialing import Proxy
from kalends_webhooks.domain.signing import Brand


class WebhooksSettings(ServiceSettings, frozen=True, kw_only=True):
    role: Annotated[
        Literal["all", "dispatch", "deliver"],
        Meta(description="dispatch makes public events and serves the API, deliver sends, all does both."),
    ] = "all"
    secret_key: SecretKeys
    webhooks_allow_http: Annotated[bool, Meta(description="Lets webhooks go to http:// addresses.")] = False
    allow_addresses: Networks = ()
    webhooks_profile: Annotated[
        Profile,
        Meta(description="The profile of a webhook that names none."),
    ] = "kalends"
    webhooks_proxy: Annotated[
        str | None,
        Meta(description="http://[user:password@]host:port, through which webhooks go.", extra={"secret": True}),
    ] = None
    webhooks_concurrency: Annotated[int, Meta(ge=1, le=10_000, description="Attempts in flight a process.")] = 512
    webhooks_log_days: Annotated[int, Meta(ge=1, le=3650, description="Days for which ended deliveries are kept.")] = 30
    webhooks_signature_header: Annotated[str, Meta(description="The header of profile kalends.")] = ""
    webhooks_timestamp_header: Annotated[str, Meta(description="The second header of profile timestamped.")] = ""
    webhooks_x_signature_header: Annotated[str, Meta(description="The header of profiles sha256-prefixed and hex.")] = (
        ""
    )
    webhooks_x_signature_256_header: Annotated[str, Meta(description="The header of profile sha256-bare.")] = ""
    brand: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=40,
            pattern="^[A-Za-z0-9-]+$",
            description="The name in headers that are not named above.",
        ),
    ] = "Kalends"

    def __post_init__(self) -> None:
        self.policy()
        self.proxy()

    def policy(self) -> Policy:
        """Which addresses may be called.

        Raises:
            ValueError: one of those allowed is no network.
        """
        try:
            return Policy(self.allow_addresses, allow_http=self.webhooks_allow_http)
        except ValueError as error:
            raise ValueError(f"KALENDS_ALLOW_ADDRESSES: {error}") from error

    def proxy(self) -> Proxy | None:
        """The proxy through which webhooks go, if there is one.

        Raises:
            ValueError: it is not written as one.
        """
        try:
            return None if self.webhooks_proxy is None else Proxy.parse(self.webhooks_proxy)
        except ValueError as error:
            raise ValueError(f"KALENDS_WEBHOOKS_PROXY: {error}") from error

    def headers(self) -> Brand:
        """The names of this deployment's headers."""
        brand = self.brand
        return Brand(
            signature=self.webhooks_signature_header or f"{brand}-Signature",
            timestamp=self.webhooks_timestamp_header or f"{brand}-Timestamp",
            x_signature=self.webhooks_x_signature_header or f"X-{brand}-Signature",
            x_signature_256=self.webhooks_x_signature_256_header or f"X-{brand}-Signature-256",
            user_agent=f"{brand}-Webhooks/1",
        )
