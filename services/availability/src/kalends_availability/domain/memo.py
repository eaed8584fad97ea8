"""A bounded memory of what is costly to make. Whoever asks puts into the key all that it depends on."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import count
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")

# Keys name what they are about by a number of its own, so that nothing lives on because something was made of it.
SERIALS: Final = count()
# What an entry's key and place weigh beside the value itself.
_ENTRY: Final = 300


class Memo(Generic[T]):
    """Keeps the values used last, up to so many bytes of them by `size`."""

    def __init__(self, max_bytes: int, size: Callable[[T], int]) -> None:
        self._max = max_bytes
        self._size = size
        self._bytes = 0
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    @property
    def weight(self) -> int:
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        try:
            found = self._kept[key]
        except KeyError:
            found = self._kept[key] = make()
            self._bytes += _ENTRY + self._size(found)
            while self._bytes > self._max and len(self._kept) > 1:
                self._bytes -= _ENTRY + self._size(self._kept.popitem(last=False)[1])
            return found
        self._kept.move_to_end(key)
        return found


BitMemo = Memo[int]


def bit_memo(max_bytes: int = 16_000_000) -> BitMemo:
    """For sets of minutes."""
    return Memo(max_bytes, lambda bits: bits.bit_length() >> 3)


class once(Generic[V]):  # noqa: N801 - a decorator
    """A property that is computed when it is first asked for.

    functools.cached_property takes a lock for that (until Python 3.12), which costs more than most of what is computed here.
    """

    def __init__(self, make: Callable[[Any], V]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, one: Any, _owner: type | None = None) -> V:
        # Found in the object's own dictionary from here on.
        found = one.__dict__[self._name] = self._make(one)
        return found
