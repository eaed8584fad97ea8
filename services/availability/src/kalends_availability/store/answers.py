"""Answers of availability that are still right: what they were made of is the same, and time has not changed them."""

from typing import Final
from weakref import ReferenceType

from msgspec import Struct

from kalends_availability.domain.bits import Frame
from kalends_availability.domain.plan import Plan
from kalends_availability.store.shelf import Shelf

Key = tuple[str, str, str]
_ENTRY: Final = 700
_PART: Final = 120


class Kept(Struct, frozen=True):
    """An answer, made of `plan` and `parts`, right for the tenant's times `[begin, until)` and the wall clock's before `stale_at`.

    It does not hold what it was made of: that goes with the memory that holds it, and the answer is then wrong.
    """

    plan: ReferenceType[Plan]
    frame: Frame
    hosts: list[str]
    parts: list[ReferenceType[object]]
    begin: float
    until: float
    stale_at: float
    body: bytes
    etag: str

    @property
    def weight(self) -> int:
        return _ENTRY + _PART * len(self.parts) + len(self.body)

    def right(self, parts: list[object]) -> bool:
        return len(parts) == len(self.parts) and all(
            kept() is part for kept, part in zip(self.parts, parts, strict=True)
        )


class Answers:
    """Keeps the answers used last, up to so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: Shelf[Kept] = Shelf(max_bytes, lambda kept: kept.weight)

    @property
    def weight(self) -> int:
        return self._kept.weight

    def get(self, key: Key, plan: Plan, now: float, wall: float) -> Kept | None:
        """One that may still be right: its parts have to be looked at."""
        kept = self._kept.get(key)
        if kept is None or kept.plan() is not plan or not kept.begin <= now < kept.until or wall >= kept.stale_at:
            return None
        return kept

    def keep(self, key: Key, kept: Kept) -> None:
        self._kept.keep(key, kept)
