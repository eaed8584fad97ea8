"""A bounded memory of what was loaded out of the database, from which what has changed is dropped."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

V = TypeVar("V")
Key = tuple[str, ...]


class Shelf(Generic[V]):
    """Keeps the values used last, up to so much weight of them.

    What is dropped while it is being loaded is not kept: the load may have read what was there before. It is given to
    those who already wait for it, as they asked before the change.
    """

    def __init__(self, most: int, weigh: Callable[[V], int]) -> None:
        self._most = most
        self._weigh = weigh
        self._weight = 0
        self._kept: OrderedDict[Key, tuple[V, int]] = OrderedDict()
        self._loading: set[_Load] = set()

    @property
    def weight(self) -> int:
        return self._weight

    def get(self, key: Key) -> V | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    async def many(
        self, keys: Sequence[Key], load: Callable[[list[Key]], Awaitable[dict[Key, V]]], fit: Callable[[V], bool]
    ) -> dict[Key, V]:
        """The values of keys; those that are not there, or do not `fit`, are loaded together."""
        found: dict[Key, V] = {}
        missing: list[Key] = []
        for key in keys:
            value = self.get(key)
            if value is None or not fit(value):
                missing.append(key)
            else:
                found[key] = value
        if missing:
            found |= await self._load(missing, load)
        return found

    async def _load(self, keys: list[Key], load: Callable[[list[Key]], Awaitable[dict[Key, V]]]) -> dict[Key, V]:
        mark = _Load()
        self._loading.add(mark)
        try:
            loaded = await load(keys)
        finally:
            self._loading.discard(mark)
        if not mark.void:
            for key, value in loaded.items():
                if key not in mark.dropped:
                    self.keep(key, value)
        return loaded

    def keep(self, key: Key, value: V) -> None:
        """Puts a value there, and lets go of those used longest ago that there is no more room for."""
        if (old := self._kept.pop(key, None)) is not None:
            self._weight -= old[1]
        weight = self._weigh(value)
        self._kept[key] = value, weight
        self._weight += weight
        while self._weight > self._most and len(self._kept) > 1:
            _, (_, gone) = self._kept.popitem(last=False)
            self._weight -= gone

    def drop(self, key: Key) -> None:
        """Forgets a value, also one that is being loaded."""
        for load in self._loading:
            load.dropped.add(key)
        if (gone := self._kept.pop(key, None)) is not None:
            self._weight -= gone[1]

    def drop_where(self, found: Callable[[Key, V], bool]) -> None:
        """Forgets what is found, and whatever is being loaded."""
        for load in self._loading:
            load.void = True
        for key in [key for key, (value, _) in self._kept.items() if found(key, value)]:
            self.drop(key)

    def clear(self) -> None:
        self.drop_where(lambda _key, _value: True)


class _Load:
    """A load that is under way, and what was dropped meanwhile."""

    def __init__(self) -> None:
        self.dropped: set[Key] = set()
        self.void = False
