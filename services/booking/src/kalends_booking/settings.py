"""The booking service's settings."""

from kalends_shared.settings import ServiceSettings


class BookingSettings(ServiceSettings, frozen=True, kw_only=True):
    """What every service of the data plane has; booking needs no more."""
