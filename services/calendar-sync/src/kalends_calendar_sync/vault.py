"""A calendar's password: sealed for its row, opened only to be handed to an adapter."""

from typing import Final

from kalends_shared.rewrapping import Sealed
from kalends_shared.seal import Keyring


def belongs_to(tenant: str, calendar_id: str, credentials: int) -> str:
    """What a sealed password is bound to; `credentials` counts how often it was changed."""
    return f"{tenant}|{calendar_id}|{credentials}"


def seal(keyring: Keyring, password: str | None, tenant: str, calendar_id: str, credentials: int) -> bytes | None:
    return None if password is None else keyring.seal(password.encode(), belongs_to(tenant, calendar_id, credentials))


def opened(keyring: Keyring, sealed: bytes | None, tenant: str, calendar_id: str, credentials: int) -> str | None:
    """The password.

    Raises:
        SealError: it was sealed by a key that is not at hand, or for another row.
    """
    return None if sealed is None else keyring.open(sealed, belongs_to(tenant, calendar_id, credentials)).decode()


SEALED: Final = Sealed(
    page="""
        SELECT tenant_id, id, credentials, ARRAY[sealed] AS secrets FROM calendars
        WHERE (tenant_id, id) > ($1, $2) ORDER BY tenant_id, id LIMIT $3 FOR NO KEY UPDATE
    """,
    put="UPDATE calendars SET sealed = ($3::bytea[])[1] WHERE tenant_id = $1 AND id = $2",
    belongs_to=lambda row: belongs_to(row["tenant_id"], row["id"], row["credentials"]),
)
