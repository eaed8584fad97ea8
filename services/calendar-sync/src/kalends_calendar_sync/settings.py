"""What the operator may set; every name is an environment variable with KALENDS_ before it, in capitals."""

from typing import Annotated

from msgspec import Meta

from kalends_shared.net import Policy
from kalends_shared.settings import Networks, SecretKeys, ServiceSettings


class CalendarSyncSettings(ServiceSettings, frozen=True, kw_only=True):
    secret_key: SecretKeys
    calendars_allow_http: Annotated[bool, Meta(description="Lets calendars be at http:// addresses.")] = False
    allow_addresses: Networks = ()
    calendars_poll_seconds: Annotated[float, Meta(gt=0, le=600, description="How often a calendar is read.")] = 60.0
    calendars_timeout_seconds: Annotated[
        float, Meta(gt=0, le=120, description="How long a calendar server may take for one answer.")
    ] = 20.0
    calendars_lease_seconds: Annotated[
        float,
        Meta(gt=0, le=3600, description="After how long the work of a worker that died is taken up by another."),
    ] = 90.0
    calendars_concurrency: Annotated[
        int, Meta(ge=1, le=100, description="Calendars read at a time, and bookings written, a process.")
    ] = 16

    def __post_init__(self) -> None:
        self.policy()

    def policy(self) -> Policy:
        """Which addresses may be called.

        Raises:
            ValueError: one of those allowed is no network.
        """
        try:
            return Policy(self.allow_addresses, allow_http=self.calendars_allow_http)
        except ValueError as error:
            raise ValueError(f"KALENDS_ALLOW_ADDRESSES: {error}") from error
