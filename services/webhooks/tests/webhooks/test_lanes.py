"""Fairness, as arithmetic."""

import itertools
from collections import Counter

from kalends_webhooks.delivery.job import Lane
from kalends_webhooks.delivery.lanes import QUANTUM, Lanes

A, B, C = Lane("a", "1"), Lane("a", "2"), Lane("b", "3")


def turn(lanes: Lanes, most: int = 1000) -> dict[Lane, int]:
    return dict(lanes.choose(most))


def test_a_lane_gets_as_much_as_it_may_hold():
    lanes = Lanes(100)
    lanes.wake([A])
    assert turn(lanes) == {A: 16}
    assert turn(lanes) == {}
    for _ in range(16):
        lanes.ended(A, answered=True, succeeded=True, seconds=0.01)
    assert turn(lanes) == {A: 32}


def test_an_account_of_many_lanes_gets_no_more_turns_than_one_of_one():
    lanes = Lanes(10_000)
    many = [Lane("big", str(n)) for n in range(100)]
    lanes.wake(many)
    lanes.wake([C])
    first = lanes.choose(2 * QUANTUM)
    assert {lane.tenant_id: places for lane, places in first} == {"big": QUANTUM, "b": QUANTUM}


def test_lanes_of_an_account_take_turns():
    lanes = Lanes(10_000)
    lanes.wake([A, B])
    taken: Counter[Lane] = Counter()
    for _ in range(20):
        for lane, places in lanes.choose(QUANTUM):
            taken[lane] += places
            for _ in range(places):
                lanes.ended(lane, answered=True, succeeded=True, seconds=0.01)
    assert abs(taken[A] - taken[B]) <= QUANTUM


def test_one_account_leaves_half_of_the_places_to_others():
    lanes = Lanes(64)
    lanes.wake([Lane("big", str(n)) for n in range(20)])
    assert sum(turn(lanes).values()) == 32
    assert turn(lanes) == {}
    lanes.wake([C])
    assert turn(lanes) == {C: 16}


def test_a_lane_that_hangs_soon_holds_one_place_and_rests_between():
    now = 0.0
    lanes = Lanes(1000, lambda: now)
    lanes.wake([A])
    held, at = [], []
    while len(held) < 7:
        for lane, places in lanes.choose(1000):
            held.append(places)
            at.append(now)
            now += 10
            for _ in range(places):
                lanes.ended(lane, answered=False, succeeded=False, seconds=10)
        now += 0.5
        lanes.wake([A])
    assert held == [16, 1, 1, 1, 1, 1, 1]
    assert [later - earlier for earlier, later in itertools.pairwise(at)] == [10.5] * 4 + [11.0, 12.0]
    assert lanes.resting() == 1


def test_rests_grow_and_one_answer_ends_them():
    now = 0.0
    lanes = Lanes(1000, lambda: now)
    for _ in range(5):
        assert lanes.reserve(A)
        now += 1
        lanes.ended(A, answered=False, succeeded=False, seconds=1)
    rests = []
    for _ in range(7):
        began = now
        while not lanes.reserve(A):
            now += 0.25
        assert not lanes.reserve(A), "one attempt tries"
        rests.append(now - began)
        lanes.ended(A, answered=False, succeeded=False, seconds=0)
    assert rests == [1, 2, 4, 8, 16, 30, 30]
    now += 30
    assert lanes.reserve(A)
    lanes.ended(A, answered=True, succeeded=False, seconds=0)
    assert lanes.reserve(A)
    assert lanes.resting() == 0


def test_slow_lanes_leave_a_quarter_of_the_places_to_quick_ones():
    lanes = Lanes(100)
    slow = [Lane(f"t{n}", "x") for n in range(50)]
    for lane in slow:
        assert lanes.reserve(lane)
        lanes.ended(lane, answered=True, succeeded=True, seconds=5)
    lanes.wake(slow)
    assert sum(turn(lanes).values()) == 75
    assert turn(lanes) == {}
    lanes.wake([C])
    assert turn(lanes) == {C: 16}


def test_slow_lanes_of_an_account_leave_half_of_its_places_to_its_quick_ones():
    lanes = Lanes(200)
    slow = [Lane("a", str(n)) for n in range(20)]
    lanes.wake(slow)
    assert sum(turn(lanes).values()) == 100, "nobody knows yet"
    for lane in slow:
        lanes.suspect(lane)
    lanes.wake([A])
    for lane in slow[:7]:
        for _ in range(16):
            if lanes._lanes[lane].held:
                lanes.ended(lane, answered=True, succeeded=True, seconds=10)
    held = lanes._slow_by["a"]
    assert held < 50
    taken = turn(lanes)
    assert lanes._slow_by["a"] == 50, "the slow ones fill their half, and no more"
    quick = Lane("a", "quick")
    lanes.wake([quick])
    assert (taken.get(quick), turn(lanes)) == (None, {quick: 16})


def test_what_is_woken_during_a_claim_is_not_forgotten():
    lanes = Lanes(100)
    lanes.wake([A])
    assert turn(lanes) == {A: 16}
    lanes.wake([A])  # committed after the claim had looked
    lanes.claimed(A, 16, 0)
    assert turn(lanes) == {A: 16}
    lanes.claimed(A, 16, 3)
    assert (turn(lanes), lanes.held) == ({}, 3)


def test_a_lane_with_others_waiting_is_not_overtaken():
    lanes = Lanes(100)
    assert lanes.reserve(A)
    lanes.wake([A])
    assert not lanes.reserve(A)


def test_places_are_given_back_to_the_last():
    lanes = Lanes(50)
    lanes.wake([A, B, C])
    for _ in range(50):
        for lane, places in lanes.choose(7):
            for n in range(places):
                lanes.ended(lane, answered=n % 3 > 0, succeeded=n % 2 > 0, seconds=n % 5)
    for lane in (A, B, C):
        lanes.claimed(lane, 0, 0)
    assert lanes.held == 0
    assert (lanes._held_slow, lanes._held_by) == (0, {})
