"""Waiting in tests: for what becomes true, never for a time."""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event
from time import monotonic

_LOOK = 0.02


def eventually(holds: Callable[[], bool], timeout: float = 120) -> None:
    """Returns as soon as it holds, and fails where it does not in time. Blocks, so not for tests that serve something."""
    pause, give_up = Event(), monotonic() + timeout
    while not holds():
        assert monotonic() < give_up, f"it still does not hold after {timeout} s"
        pause.wait(_LOOK)


async def eventually_async(holds: Callable[[], Awaitable[bool]], timeout: float = 120) -> None:  # noqa: ASYNC109
    """The same for what is asked asynchronously; the loop goes on meanwhile."""
    give_up = monotonic() + timeout
    while not await holds():
        assert monotonic() < give_up, f"it still does not hold after {timeout} s"
        await asyncio.sleep(_LOOK)
