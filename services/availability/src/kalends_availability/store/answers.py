"""Answers of availability that are still right: what they were made of is the same, and time has not changed them."""

from collections import OrderedDict
from operator import is_
from typing import Final

from msgspec import Struct

from kalends_availability.domain.bits import Frame
from kalends_availability.domain.plan import Plan

Key = tuple[str, str, str]
_ENTRY: Final = 500


class Kept(Struct, frozen=True):
    """An answer, made of `plan` and `parts`, right for the tenant's times `[begin, until)` and the wall clock's before `stale_at`."""

    plan: Plan
    frame: Frame
    hosts: list[str]
    parts: list[object]
    begin: float
    until: float
    stale_at: float
    body: bytes
    etag: str

    def right(self, parts: list[object]) -> bool:
        return len(parts) == len(self.parts) and all(map(is_, parts, self.parts))


class Answers:
    """Keeps the answers used last, up to so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, Kept] = OrderedDict()

    def get(self, key: Key, plan: Plan, now: float, wall: float) -> Kept | None:
        """One that may still be right: its parts have to be looked at."""
        kept = self._kept.get(key)
        if kept is None or kept.plan is not plan or not kept.begin <= now < kept.until or wall >= kept.stale_at:
            return None
        self._kept.move_to_end(key)
        return kept

    def keep(self, key: Key, kept: Kept) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._bytes -= len(old.body) + _ENTRY
        self._kept[key] = kept
        self._bytes += len(kept.body) + _ENTRY
        while self._bytes > self._max and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1].body) + _ENTRY
