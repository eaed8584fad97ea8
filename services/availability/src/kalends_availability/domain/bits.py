"""Sets of minutes as integers: bit i of a set is minute `base + i` of its frame.

Python's integers are arbitrarily long, so that a month is one number of 5.6 KB, and and-ing or shifting it takes
about a microsecond.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from kalends_availability.domain.zones import DAY, Interval

_FAR: Final = 1 << 62


class Frame(NamedTuple):
    """The minutes that sets are about. Starts are looked for in `[low, high)`; what follows is room for the longest slot.

    It begins and ends with days of UTC, so that sets made for one question serve the next ones too.
    """

    base: int
    size: int
    low: int
    high: int

    @classmethod
    def over(cls, low: int, high: int) -> "Frame":
        base = low // DAY * DAY
        return cls(base, (max(high - 1, low) // DAY + 2) * DAY - base, low, high)

    @property
    def end(self) -> int:
        return self.base + self.size

    @property
    def every(self) -> int:
        return _every(self.size)

    @property
    def starts(self) -> int:
        return span(self, self.low, self.high)


@lru_cache(maxsize=64)
def _every(size: int) -> int:
    return (1 << size) - 1


def span(frame: Frame, low: int, high: int) -> int:
    """The minutes `[low, high)`, as far as the frame goes."""
    low, high = max(low - frame.base, 0), min(high - frame.base, frame.size)
    return (1 << high) - (1 << low) if low < high else 0


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same minutes as disjoint intervals, ascending; those that touch are one."""
    out: list[Interval] = []
    for low, high in sorted(intervals):
        if out and low <= out[-1][1]:
            if high > out[-1][1]:
                out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out


def filled(frame: Frame, intervals: Sequence[Interval], before: int = 0, after: int = 0) -> int:
    """The minutes of ascending intervals, each widened on both sides.

    Made as the difference of two numbers: one with a bit at every end, one with a bit at every beginning. Setting those
    in a byte array costs a tenth of or-ing whole-month numbers.
    """
    size, back, ahead = frame.size, frame.base + before, after - frame.base
    length = (size >> 3) + 1
    begins, ends = bytearray(length), bytearray(length)
    low, high = 0, -_FAR
    for first, last in intervals:
        start, end = first - back, last + ahead
        if start > high:
            if start >= size:
                break
            if high > 0:
                # One that begins before the frame begins with it.
                begins[low >> 3 if low > 0 else 0] |= 1 << (low & 7) if low > 0 else 1
                ends[high >> 3] |= 1 << (high & 7)
            low, high = start, end
        elif end > high:
            high = end
    if high <= 0:
        return 0
    low, high = max(low, 0), min(high, size)
    begins[low >> 3] |= 1 << (low & 7)
    ends[high >> 3] |= 1 << (high & 7)
    return int.from_bytes(ends, "little") - int.from_bytes(begins, "little")


def within(intervals: Sequence[Interval], low: int, high: int) -> Sequence[Interval]:
    """Those of disjoint ascending intervals that meet `[low, high)`, and perhaps one before them."""
    first = bisect_left(intervals, (low, -_FAR))
    return intervals[max(first - 1, 0) : bisect_left(intervals, (high, -_FAR))]


def lasting(minutes: int, needed: int) -> int:
    """Those minutes from which on `needed` minutes in a row are in the set."""
    have = 1
    while have * 2 <= needed:
        minutes &= minutes >> have
        have *= 2
    return minutes & (minutes >> (needed - have)) if have < needed else minutes


@lru_cache(maxsize=512)
def every_nth(step: int, count: int) -> int:
    """Bits 0, step, 2 * step, ... of which there are `count`."""
    return ((1 << (step * count)) - 1) // ((1 << step) - 1)


def at_least(needed: int, sets: Sequence[int]) -> int:
    """The minutes that are in at least so many of the sets."""
    reached = [0] * needed
    for one in sets:
        for i in range(needed - 1, 0, -1):
            reached[i] |= reached[i - 1] & one
        reached[0] |= one
    return reached[-1] if needed else 0


def ones(bits: int) -> list[int]:
    """The places of the bits that are set, ascending."""
    text = f"{bits:b}"[::-1]
    out, at = [], text.find("1")
    while at >= 0:
        out.append(at)
        at = text.find("1", at + 1)
    return out
