"""One stack for the whole folder: two replicas of every service, on servers of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness.client import Client
from harness.sink import Sink, sink
from harness.stack import Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests share one stack, so one worker runs them all."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("stack"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    settings = {
        "KALENDS_TRACE_EXPORTER": "file",
        "KALENDS_TRACE_FILE": str(folder / "spans.jsonl"),
        # Recorded where a test asks for it by a sampled traceparent.
        "KALENDS_TRACE_RATIO": "0",
        # A refusal is to name other starts also where the machine has much to do.
        "KALENDS_ALTERNATIVES_SECONDS": "8",
    }
    one = Stack(folder, settings=settings)
    one.up()
    try:
        yield one
    finally:
        one.down()


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.urls, stack.key) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Sink]:
    async with sink() as one:
        yield one
