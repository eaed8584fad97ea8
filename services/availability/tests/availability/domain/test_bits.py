"""Sets of minutes against sets of minutes as Python has them."""

from hypothesis import given
from hypothesis import strategies as st

from kalends_availability.domain.bits import Frame, filled, merged, ones

MINUTES = st.integers(-2_000, 6_000)
INTERVALS = st.lists(st.builds(lambda low, length: (low, low + length), MINUTES, st.integers(1, 900)), max_size=9)


@given(st.sampled_from([0, 1440, -1440]), INTERVALS, st.booleans(), st.integers(-1, 200), st.integers(0, 200))
def test_intervals_fill_the_minutes_of_the_frame_that_they_have(
    base: int, intervals: list[tuple[int, int]], disjoint: bool, before: int, after: int
) -> None:
    frame = Frame(base, 2880, base, base + 2880)
    ascending = merged(intervals) if disjoint else sorted(intervals)
    minutes = {minute for low, high in ascending for minute in range(low - before, high + after)}
    wanted = sorted(minute - base for minute in minutes if base <= minute < frame.end)
    assert ones(filled(frame, ascending, before=before, after=after)) == wanted
