"""What a key may do."""

from collections.abc import Collection, Iterable
from typing import Final, get_args

from kalends_shared.contracts.accounts import Scope
from kalends_shared.contracts.endpoints import Needs

ORDER: Final[tuple[str, ...]] = get_args(Scope)
_IMPLIED: Final[dict[str, frozenset[str]]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"write", "read"}),
    "webhooks": frozenset({"webhooks"}),
    "admin": frozenset(ORDER),
}
_SUFFICES: Final[dict[Needs, frozenset[str]]] = {
    "any": frozenset(ORDER),
    "read": frozenset({"read"}),
    "write": frozenset({"write"}),
    "webhooks": frozenset({"webhooks"}),
    "hooks": frozenset({"read", "webhooks"}),
    "admin": frozenset({"admin"}),
}


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes with what they imply: write holds read, admin all."""
    return frozenset().union(*(_IMPLIED[scope] for scope in scopes))


def suffices(expanded: Collection[str], needs: Needs) -> bool:
    """Tells whether expanded scopes reach what an endpoint needs."""
    return not _SUFFICES[needs].isdisjoint(expanded)


def in_order(scopes: Collection[str]) -> list[str]:
    """Each once, in the order in which the contract names them."""
    return [scope for scope in ORDER if scope in scopes]
