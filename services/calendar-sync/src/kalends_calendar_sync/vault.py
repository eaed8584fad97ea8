"""A calendar's password: sealed for its row, opened only to be handed to an adapter."""

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
