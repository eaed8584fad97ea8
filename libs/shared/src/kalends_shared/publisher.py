"""The writing end of a context's stream: its configuration, its last message, and publishing at an expected sequence."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from nats import errors as nats_errors
from nats.aio.client import Client

from kalends_shared.jetstream import (
    STREAM_NOT_FOUND,
    JetStreamError,
    LastMessage,
    api,
    checked,
    last_message,
    stream_name,
    subjects,
)

BATCH_BYTES: Final = 2 * 1024 * 1024
SINGLES: Final = 10  # up to so many go one by one: a batch costs ten times one publish, whatever its size
ACK_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.2

Message = tuple[str, bytes]
"""Subject and body."""


class Publisher:
    """Writes one stream. `created` and `sequence` are which stream it is and where it ended when it was last seen.

    Every write is fenced: it expects `sequence` to be the last. Another writer, a wipe or a lost end shows as
    `WRONG_LAST_SEQUENCE`; then, and after any failure whose outcome is unknown, `open` and `last` say what is there.
    """

    def __init__(self, bus: Client, context: str, retention: timedelta, replicas: int) -> None:
        self._bus, self._context, self.name = bus, context, stream_name(context)
        self._config: dict[str, Any] = {
            "name": self.name,
            "subjects": [subjects(context)],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_age": int(retention.total_seconds() * 1e9),
            "num_replicas": replicas,
            "allow_atomic": True,
            "allow_direct": True,
        }
        self.created = ""
        self.sequence = 0
        self.empty = True
        self._reconnects = -1
        self._batches = 0

    @property
    def reconnected(self) -> bool:
        """Whether NATS has been away since the stream was last looked at."""
        return bool(self._bus.stats["reconnects"] != self._reconnects)

    async def open(self) -> None:
        """Makes the stream where there is none, sees to its configuration, and looks where it ends.

        Raises:
            JetStreamError, OSError, nats errors: it cannot be had now.
        """
        self._reconnects = self._bus.stats["reconnects"]
        try:
            info = await api(self._bus, f"STREAM.INFO.{self.name}")
        except JetStreamError as error:
            if error.code != STREAM_NOT_FOUND:
                raise
            info = await api(self._bus, f"STREAM.CREATE.{self.name}", self._config)
        if any(info["config"].get(key) != value for key, value in self._config.items()):
            info = await api(self._bus, f"STREAM.UPDATE.{self.name}", info["config"] | self._config)
        self.created, self.sequence = info["created"], info["state"]["last_seq"]
        self.empty = not info["state"]["messages"]

    async def last(self) -> LastMessage | None:
        """The last message; None where there is none (any more).

        Raises:
            ValueError: it is no event of ours.
        """
        if self.empty:
            return None
        found = await last_message(self._bus, self._context)
        if found is None:
            return None
        sequence, body = found
        self.sequence = max(self.sequence, sequence)
        try:
            return msgspec.json.decode(body, type=LastMessage)
        except msgspec.MsgspecError as error:
            raise ValueError(f"the last message of {self.name} is no event of ours") from error

    async def unchanged(self) -> bool:
        """Whether the stream is the one that was opened, and ends where we left it."""
        if not self._bus.is_connected:
            raise nats_errors.ConnectionReconnectingError
        self._reconnects = self._bus.stats["reconnects"]
        try:
            info = await api(self._bus, f"STREAM.INFO.{self.name}")
        except JetStreamError as error:
            if error.code != STREAM_NOT_FOUND:
                raise
            return False
        return bool(info["created"] == self.created and info["state"]["last_seq"] == self.sequence)

    async def publish(self, messages: Sequence[Message]) -> int:
        """Writes some of the messages, from the first on; returns how many: call it until all are written.

        Raises:
            JetStreamError: the server refused one of them.
            OSError, TimeoutError, nats errors: how many of them were written is unknown.
        """
        if len(messages) <= SINGLES:
            await self._singles(messages)
            return len(messages)
        count, size = 0, 0
        while count < len(messages) and (size < BATCH_BYTES or count == 0):
            size += len(messages[count][1])
            count += 1
        if count == 1:
            await self._singles(messages[:1])
        else:
            await self._batch(messages[:count])
        return count

    async def _singles(self, messages: Sequence[Message]) -> None:
        """One by one, but without waiting for each: it expects the one before it to be the last, so none passes a lost one.

        Another writer that goes on from the same end means the same message by each place: so it may be in between.
        """
        fenced = [
            (subject, body, {"Nats-Expected-Last-Sequence": str(self.sequence + n)})
            for n, (subject, body) in enumerate(messages)
        ]
        for answer in await self._ask(*fenced):
            self.sequence = checked(answer)["seq"]

    async def _batch(self, messages: Sequence[Message]) -> None:
        """An atomic batch (ADR-50): all of it or nothing, the first fenced, the first and the last answered."""
        self._batches += 1
        batch = {"Nats-Batch-Id": f"{id(self):x}-{time.time_ns():x}-{self._batches}"}
        last = len(messages)
        for number, (subject, body) in enumerate(messages, 1):
            headers = batch | {"Nats-Batch-Sequence": str(number)}
            if number == 1:
                headers["Nats-Expected-Last-Sequence"] = str(self.sequence)
                (refused,) = await self._ask((subject, body, headers))
                if refused:
                    checked(refused)
            elif number < last:
                await self._bus.publish(subject, body, headers=headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                (answer,) = await self._ask((subject, body, headers))
                self.sequence = checked(answer)["seq"]

    async def _ask(self, *messages: tuple[str, bytes, dict[str, str]]) -> list[bytes]:
        """Requests to the stream, in their order. Where the connection is lost so are the answers, and nobody waits for them."""
        asked = asyncio.ensure_future(self._answers(messages))
        try:
            while not (await asyncio.wait({asked}, timeout=LOOK_SECONDS))[0]:
                if not self._bus.is_connected or self.reconnected:
                    raise nats_errors.ConnectionReconnectingError
            return await asked
        finally:
            asked.cancel()

    async def _answers(self, messages: Sequence[tuple[str, bytes, dict[str, str]]]) -> list[bytes]:
        asked = (
            self._bus.request(subject, body, timeout=ACK_SECONDS, headers=headers)
            for subject, body, headers in messages
        )
        return [answer.data for answer in await asyncio.gather(*asked)]


async def wipe(bus: Client, context: str) -> None:
    """Deletes a context's stream, which its relay then makes and fills again; consumers lose and repeat nothing."""
    try:
        await api(bus, f"STREAM.DELETE.{stream_name(context)}")
    except JetStreamError as error:
        if error.code != STREAM_NOT_FOUND:
            raise
