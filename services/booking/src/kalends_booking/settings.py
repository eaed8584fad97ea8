"""The booking service's settings."""

from typing import Annotated

from msgspec import Meta

from kalends_shared.settings import ServiceSettings


class BookingSettings(ServiceSettings, frozen=True, kw_only=True):
    """What booking has besides what every service of the data plane has."""

    alternatives_seconds: Annotated[
        float, Meta(ge=0, le=60, description="How long a refusal waits for other starts that it could name.")
    ] = 0.2
