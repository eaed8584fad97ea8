"""Who may come in: a valid key, counted against its limits."""

from datetime import UTC, datetime
from typing import Final

from kalends_gateway.http import request
from kalends_gateway.identity import Identities, Identity
from kalends_gateway.limits import RateLimits
from kalends_gateway.usage import Usage
from kalends_shared.contracts.errors import KalendsError

Headers = list[tuple[bytes, bytes]]
_UNAUTHENTICATED: Final = {"WWW-Authenticate": 'Bearer realm="kalends"'}


class Admission:
    """Judges keys."""

    def __init__(self, identities: Identities, limits: RateLimits, usage: Usage) -> None:
        self._identities, self._limits, self._usage = identities, limits, usage

    async def admit(self, head: request.Head, headers: Headers) -> Identity:
        """Whose request it is. What counting it said goes into `headers`, which every answer carries.

        Raises:
            KalendsError: `unauthenticated`, `rate_limited`, `insufficient_scope` where it names another account.
        """
        identity = await self._open(head)
        if identity is None:
            raise unauthenticated()
        self._usage.note(identity)
        if (
            identity.limits is not None
            and (verdict := await self._limits.count(identity.key_id, identity.limits)) is not None
        ):
            headers += verdict.headers
            if not verdict.open:
                raise KalendsError(
                    "rate_limited", "This key has used up its requests for now.", retry_after=verdict.retry_after
                )
        account = head.get(b"kalends-account")
        if account is not None and account != identity.account_id.encode():
            raise KalendsError("insufficient_scope", "This key may not act for another account.")
        return identity

    async def still(self, head: request.Head) -> bool:
        """Tells, whenever it is asked, whether the key of a long request still opens the door."""
        return await self._open(head) is not None

    async def _open(self, head: request.Head) -> Identity | None:
        secret = request.secret(head)
        identity = await self._identities.find(secret) if secret else None
        if identity is None or (identity.expires_at is not None and identity.expires_at <= datetime.now(UTC)):
            return None
        return identity


def unauthenticated() -> KalendsError:
    return KalendsError("unauthenticated", "A valid API key is needed.", headers=_UNAUTHENTICATED)
