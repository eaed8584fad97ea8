"""What a replica keeps is bounded, and weighs what it says."""

import gc
import math
import tracemalloc
from collections.abc import Callable
from typing import Any, cast
from weakref import ref

import pytest

from kalends_availability.domain.bits import Frame
from kalends_availability.domain.busy import (
    Counted,
    External,
    ExternalBusy,
    Held,
    Reservation,
    Reservations,
    Reserved,
    Tally,
)
from kalends_availability.domain.memo import Memo, bit_memo
from kalends_availability.domain.plan import Plan
from kalends_availability.domain.zones import zone
from kalends_availability.store.answers import Answers, Kept
from kalends_availability.store.replica import Replica
from kalends_availability.store.shelf import Shelf
from kalends_shared.db import Database

from .world import Client, at

MANY = 2_000
START = 29_600_000
ROWS = """
INSERT INTO busy (tenant_id, id, version, subject_id, event_type_id, reserved_from, reserved_to, start_min, end_min, seats,
    status, created_at, seen_from)
SELECT $1, 'bkg_full_' || n, 1, $2, $3, $4 + n * 45, $4 + n * 45 + 30, $4 + n * 45, $4 + n * 45 + 30, 1, 'confirmed', now(), now()
FROM generate_series(1, 500) n
"""


def test_a_shelf_keeps_what_was_used_last_up_to_its_bound() -> None:
    shelf: Shelf[int] = Shelf(100, lambda value: value)
    for n in range(50):
        shelf.keep(("t", str(n)), 10)
        shelf.get(("t", "0"))

    def kept() -> list[int]:
        return [n for n in range(50) if shelf.get(("t", str(n))) is not None]

    assert kept() == [0, 41, 42, 43, 44, 45, 46, 47, 48, 49]
    assert shelf.weight == 100
    shelf.keep(("t", "49"), 30)
    assert (shelf.weight, kept()) == (100, [42, 43, 44, 45, 46, 47, 48, 49])
    shelf.clear()
    assert (shelf.weight, kept()) == (0, [])


def reserved() -> Reserved:
    return Reserved([(START + n * 60, START + n * 60 + 30) for n in range(MANY)])


def held() -> Reserved:
    return Reserved((), [Held(START + n * 60, START + n * 60 + 30, n + 0.5) for n in range(MANY)])


def reservations() -> Reservations:
    starts = [START + n * 60 for n in range(MANY)]
    return Reservations([Reservation(s, s + 30, s, s + 30, f"bkg_{s:026}", f"evt_{0:026}", 1) for s in starts])


def tally() -> Tally:
    starts = [START + n * 60 for n in range(MANY)]
    made = Tally([Counted(s, s + 30, f"bkg_{s:026}") for s in starts])
    made.sums(zone("Europe/Madrid"), 0.0)
    return made


def external() -> ExternalBusy:
    starts = [START + n * 60 for n in range(MANY)]
    return ExternalBusy([External(s, s + 30, f"cev_{s:026}") for s in starts])


@pytest.mark.parametrize("make", [reserved, held, reservations, tally, external])
def test_weights_are_true(make: Callable[[], Any]) -> None:
    """Nothing weighs less than it takes, by more than a fifth, nor more than twice of it."""
    make()  # what is remembered by the way is not its own
    gc.collect()
    tracemalloc.start()
    one = make()
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken * 0.8 < one.weight < taken * 2


def test_masks_are_bounded() -> None:
    memo = bit_memo(100_000)
    for n in range(1_000):
        memo.get(n, lambda: 1 << 80_000)
    assert memo.weight <= 100_000
    assert memo.get(999, lambda: 0) == 1 << 80_000


def test_answers_are_bounded() -> None:
    answers = Answers(100_000)
    plan = cast("Plan", Memo(0, int))  # anything that can be referred to
    for n in range(1_000):
        body = b"x" * 10_000
        answers.keep(("t", "e", str(n)), Kept(ref(plan), Frame.over(0, 1), [], [], 0.0, math.inf, math.inf, body, ""))
    assert answers.weight <= 100_000
    assert answers.get(("t", "e", "999"), plan, 1.0, 1.0) is not None
    assert answers.get(("t", "e", "1"), plan, 1.0, 1.0) is None


async def test_a_replica_keeps_to_its_megabytes(api: Client, db: Database) -> None:
    """Twenty hosts of 500 bookings, asked about in every way, weigh three times what there is room for."""
    replica = Replica(db, megabytes=1)
    for _ in range(20):
        kind = await api.event_type(limits=[{"count": 100, "per": "month"}])
        begin = int(at(0).timestamp()) // 60
        await db.pool.execute(ROWS, api.tenant, kind["hosts"][0]["host_id"], kind["id"], begin)
        plan = await replica.plan(api.tenant, kind["id"])
        assert plan is not None
        frame = Frame.over(begin, begin + 7 * 1440)
        for named in (False, True):
            await replica.facts(api.tenant, plan, frame, [plan.hosts[0].id], named=named)
    assert 300_000 < replica.weight <= 1_000_000
