"""The availability service's settings."""

from typing import Annotated

from msgspec import Meta

from kalends_shared.settings import ServiceSettings


class AvailabilitySettings(ServiceSettings, frozen=True, kw_only=True):
    """What every service of the data plane has, and how much this one remembers."""

    memory_mb: Annotated[
        int, Meta(ge=4, le=4096, description="Memory for settings, busy time and answers a process, in megabytes.")
    ] = 48
