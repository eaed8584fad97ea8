"""What the writing end of a stream holds to when several messages are on their way at once."""

import asyncio
import gc
from typing import Any, cast

import pytest
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalends_shared.jetstream import Feed, JetStreamError, last_message, stream_name
from kalends_shared.publisher import Message, Publisher
from kalends_shared.relay import RETENTION


class Wire:
    """A connection that answers none of so many messages before all of them were sent, and loses those of a body."""

    def __init__(self, bus: Client, together: int = 1, lost: bytes = b"") -> None:
        self._bus, self._lost, self._sent = bus, lost, asyncio.Barrier(together)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def request(self, subject: str, body: bytes, **options: Any) -> Msg:
        if not subject.startswith("kalends.ev."):
            return await self._bus.request(subject, body, **options)
        if body == self._lost:
            raise nats_errors.TimeoutError
        asked = asyncio.ensure_future(self._bus.request(subject, body, **options))
        await self._sent.wait()
        return await asked


async def opened(wire: Wire, context: str) -> Publisher:
    publisher = Publisher(cast("Client", wire), context, RETENTION, 1)
    await publisher.open()
    return publisher


def messages(context: str, *bodies: bytes) -> list[Message]:
    return [(f"kalends.ev.{context}.acc_test-live.thing.created", body) for body in bodies]


async def test_no_message_waits_for_the_answer_to_the_one_before(bus: Client, context: str) -> None:
    publisher = await opened(Wire(bus, together=3), context)
    async with asyncio.timeout(60):
        assert await publisher.publish(messages(context, b"1", b"2", b"3")) == 3
    assert publisher.sequence == 3
    assert await last_message(bus, context) == (3, b"3")


async def test_none_passes_one_that_was_lost(bus: Client, context: str) -> None:
    publisher = await opened(Wire(bus, lost=b"2"), context)
    with pytest.raises(nats_errors.TimeoutError):
        await publisher.publish(messages(context, b"1", b"2", b"3"))
    async with asyncio.timeout(60):
        while not publisher.sequence:  # the first is still on its way
            await publisher.open()
    # On the same connection this comes after the third, and is taken only if the stream still ends in the first.
    await publisher.publish(messages(context, b"again"))
    assert await last_message(bus, context) == (2, b"again")


async def test_what_two_write_at_once_is_there_once_in_order(bus: Client, context: str) -> None:
    """Both go on from one end, with the same messages: a place is taken by the first, whichever of the two it is."""
    behind, ahead = [await opened(Wire(bus), context) for _ in range(2)]
    await ahead.publish(messages(context, b"1", b"2"))
    with pytest.raises(JetStreamError):
        await behind.publish(messages(context, b"1", b"2", b"3", b"4"))
    with pytest.raises(JetStreamError):
        await ahead.publish(messages(context, b"3"))
    assert await last_message(bus, context) == (4, b"4")
    async with Feed(bus, stream_name(context), None) as feed:
        seen: list[bytes] = []
        async with asyncio.timeout(60):
            while len(seen) < 4:
                seen += [message.data for message in await feed.take(10, 1.0)]
    assert seen == [b"1", b"2", b"3", b"4"]


async def test_answers_that_nobody_waits_for_are_no_error(bus: Client, context: str) -> None:
    wire = Wire(bus, together=4)  # one more than will come, so that no answer does
    publisher = await opened(wire, context)
    wire.is_connected = False
    told: list[dict[str, Any]] = []
    before = asyncio.all_tasks()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    try:
        await publisher.publish(messages(context, b"1", b"2", b"3"))
    except nats_errors.ConnectionReconnectingError as error:
        lost = str(error)
    await asyncio.wait(asyncio.all_tasks() - before, timeout=60)
    gc.collect()
    assert (lost, told) == (str(nats_errors.ConnectionReconnectingError()), [])
