"""Adapters of calendar providers behind one protocol (`base.Adapter`); the rest of the service knows no other names."""

from kalends_calendar_sync.providers.base import Account, Adapter
from kalends_calendar_sync.providers.caldav.adapter import CalDav
from kalends_shared.net import Policy

SUPPORTED = frozenset({"caldav"})


def adapter(provider: str, account: Account, policy: Policy, timeout: float) -> Adapter:
    """The adapter of a provider, for one account; close it after use."""
    if provider == "caldav":
        return CalDav(account, policy, timeout)
    raise ValueError(f"no adapter for {provider}")
