"""The loop of both workers."""

import asyncio
from collections.abc import Sequence

from kalends_calendar_sync.worker import Worker


async def test_what_is_under_way_ends_before_the_worker_does() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []
    left = [1]

    async def claim(_: int) -> Sequence[int]:
        return [left.pop()] if left else []

    async def work(claimed: int) -> None:
        begun.set()
        await go_on.wait()
        done.append(claimed)

    stop = asyncio.Event()
    running = asyncio.create_task(Worker(claim, work, 2).run(stop))
    await begun.wait()
    stop.set()
    await asyncio.sleep(0)
    assert not running.done()
    go_on.set()
    await running
    assert done == [1]


async def test_work_that_fails_is_no_end_and_room_is_kept() -> None:
    asked: list[int] = []
    worked: list[int] = []
    left, stop = list(range(6)), asyncio.Event()

    async def claim(limit: int) -> Sequence[int]:
        asked.append(limit)
        return [left.pop() for _ in range(min(limit, len(left)))]

    async def work(claimed: int) -> None:
        worked.append(claimed)
        if len(worked) == 6:
            stop.set()
        raise ValueError(str(claimed))

    await asyncio.wait_for(Worker(claim, work, 2).run(stop), 30)
    assert sorted(worked) == list(range(6))
    assert max(asked) == 2
