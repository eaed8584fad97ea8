"""The way to a calendar's server: its password opened, its place found."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from kalends_calendar_sync import vault
from kalends_calendar_sync.providers import adapter
from kalends_calendar_sync.providers.base import Account, Adapter, Located, ProviderError
from kalends_calendar_sync.store.calendars import Connected
from kalends_shared.net import Policy
from kalends_shared.seal import Keyring, SealError


class Reach(Struct, frozen=True):
    """What calling out takes: which addresses may be called, the keys to passwords, how long an answer may take (s)."""

    policy: Policy
    keyring: Keyring
    timeout: float

    @asynccontextmanager
    async def to(self, row: Connected, known: Located | None) -> AsyncIterator[tuple[Adapter, Located]]:
        """An adapter of the calendar at its own URL, which is found first where it is not known.

        Raises:
            ProviderError: it cannot be found, or its password cannot be opened (`unauthorized`).
        """
        try:
            password = vault.opened(self.keyring, row.sealed, row.tenant_id, row.id, row.credentials)
        except SealError as error:
            raise ProviderError("unauthorized", "the stored password cannot be opened") from error
        account = Account(url=row.url or "", username=row.username, password=password)
        located = known
        if located is None:
            finder = adapter(row.provider, account, self.policy, self.timeout)
            try:
                located = await finder.locate()
            finally:
                await finder.close()
        calendar = adapter(
            row.provider,
            Account(url=located.url, username=account.username, password=account.password),
            self.policy,
            self.timeout,
        )
        try:
            yield calendar, located
        finally:
            await calendar.close()
