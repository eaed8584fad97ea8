"""What relay and consumers need of JetStream, spoken to by its own API: nats-py's layer over it hides lost messages.

A `Feed` is an ephemeral ordered push consumer that acknowledges nothing: every message bears its number in the delivery,
so a missing one, a silent server or a server that has come back shows, and the feed is opened anew by its owner.
"""

import asyncio
import time
from base64 import b64decode
from collections import deque
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from kalends_shared.service import wait

API_TIMEOUT: Final = 3.0
HEARTBEAT_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 2.0
INACTIVE_SECONDS: Final = 30
# What the client may hold before it drops: beyond what the server sends ahead of our answers to its flow control.
PENDING_BYTES: Final = 128 * 1024 * 1024
PENDING_MESSAGES: Final = 1_000_000

STREAM_NOT_FOUND: Final = 10059
NO_MESSAGE: Final = 10037
WRONG_LAST_SEQUENCE: Final = 10071


def stream_name(source: str) -> str:
    return f"KALENDS_{source.upper()}"


def subjects(source: str) -> str:
    return f"kalends.ev.{source}.>"


class JetStreamError(Exception):
    """The server's own refusal: `code` is its err_code (10071, wrong last sequence), 503 where nobody serves JetStream."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(code, description)
        self.code = code


class FeedLost(Exception):  # noqa: N818  # it is a state: open another feed
    """Messages may have been missed: open another feed from the checkpoint."""


class LastMessage(msgspec.Struct):
    """What a stream's last message says of itself."""

    id: str
    tx: int
    position: int


class Delivered(NamedTuple):
    """A message of a stream: its bytes, and when the stream got it."""

    data: bytes
    published_at: datetime


async def api(bus: Client, subject: str, body: Any = None, *, seconds: float = API_TIMEOUT) -> dict[str, Any]:
    """Asks `$JS.API.<subject>`, and waits so many seconds for the answer.

    Raises:
        JetStreamError: the server refused.
        OSError, TimeoutError, nats errors: it did not answer.
    """
    payload = b"" if body is None else msgspec.json.encode(body)
    try:
        answer = await bus.request(f"$JS.API.{subject}", payload, timeout=seconds)
    except nats_errors.NoRespondersError as error:
        raise JetStreamError(503, "nobody serves JetStream") from error
    return checked(answer.data)


async def last_message(bus: Client, source: str) -> tuple[int, bytes] | None:
    """(sequence, bytes) of the last message of a source's stream; None where there is no message (any more) or no stream.

    Raises:
        JetStreamError, OSError, TimeoutError, nats errors: it cannot be had now.
    """
    try:
        found = await api(bus, f"STREAM.MSG.GET.{stream_name(source)}", {"last_by_subj": subjects(source)})
    except JetStreamError as error:
        if error.code in {NO_MESSAGE, STREAM_NOT_FOUND}:
            return None
        raise
    return found["message"]["seq"], b64decode(found["message"]["data"])


def checked(data: bytes) -> dict[str, Any]:
    """An answer of the server, decoded.

    Raises:
        JetStreamError: it is a refusal.
    """
    decoded: dict[str, Any] = msgspec.json.decode(data)
    if error := decoded.get("error"):
        raise JetStreamError(error.get("err_code") or error.get("code", 0), error.get("description", ""))
    return decoded


class Feed:
    """A stream's messages from a time on (all of them where it is None), in order and without a hole, while it lasts."""

    def __init__(self, bus: Client, stream: str, since: datetime | None) -> None:
        self._bus, self._stream, self._since = bus, stream, since
        self._waiting: deque[Msg] = deque()
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None
        self._name = ""
        self._delivered = 0
        self._heard = 0.0
        self._reconnects = 0

    async def __aenter__(self) -> Self:
        """Opens the feed.

        Raises:
            JetStreamError: `STREAM_NOT_FOUND` where there is no stream yet.
        """
        inbox = self._bus.new_inbox()
        self._reconnects = self._bus.stats["reconnects"]
        self._subscription = await self._bus.subscribe(
            inbox, cb=self._arrive, pending_msgs_limit=PENDING_MESSAGES, pending_bytes_limit=PENDING_BYTES
        )
        start = {"deliver_policy": "all"}
        if self._since is not None:
            start = {"deliver_policy": "by_start_time", "opt_start_time": self._since.astimezone(UTC).isoformat()}
        config = start | {
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
            "inactive_threshold": INACTIVE_SECONDS * 10**9,
            "mem_storage": True,
            "num_replicas": 1,
        }
        try:
            made = await api(
                self._bus, f"CONSUMER.CREATE.{self._stream}", {"stream_name": self._stream, "config": config}
            )
        except BaseException:
            await self._unsubscribe()
            raise
        self._name = made["name"]
        self._heard = time.monotonic()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self._unsubscribe()
        if self._bus.is_connected:
            # The server would forget it by itself in 30 s; a request nobody waits for spares it that.
            await self._bus.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}")

    async def _unsubscribe(self) -> None:
        if self._subscription is not None and not self._bus.is_closed:
            await self._subscription.unsubscribe()
        self._subscription = None

    async def _arrive(self, message: Msg) -> None:
        self._waiting.append(message)
        self._arrived.set()

    async def take(self, limit: int, seconds: float) -> list[Delivered]:
        """Up to `limit` messages that are there, or the next ones within `seconds`, or none.

        Raises:
            FeedLost: one is missing, or the server has been silent or away.
        """
        until = time.monotonic() + seconds
        while True:
            taken = await self._drain(limit)
            now = time.monotonic()
            if taken:
                return taken
            if self._bus.stats["reconnects"] != self._reconnects or now - self._heard > SILENCE_SECONDS:
                raise FeedLost("the server was away")
            if now >= until:
                return []
            self._arrived.clear()
            await wait(self._arrived, min(until - now, HEARTBEAT_SECONDS))

    async def _drain(self, limit: int) -> list[Delivered]:
        taken: list[Delivered] = []
        while self._waiting and len(taken) < limit:
            message = self._waiting.popleft()
            self._heard = time.monotonic()
            if message.reply.startswith("$JS.ACK."):
                taken.append(self._number(message))
            elif message.headers is not None:
                await self._control(message, message.headers)
        return taken

    def _number(self, message: Msg) -> Delivered:
        parts = message.reply.split(".")
        # $JS.ACK.<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<time>.<pending>, or with domain and account
        # before the stream and a token at the end.
        first = 4 if len(parts) == 9 else 6
        number, nanoseconds = int(parts[first + 2]), int(parts[first + 3])
        if number != self._delivered + 1:
            raise FeedLost(f"message {self._delivered + 1} did not arrive")
        self._delivered = number
        return Delivered(message.data, datetime.fromtimestamp(nanoseconds / 1e9, UTC))

    async def _control(self, message: Msg, headers: dict[str, str]) -> None:
        """Answers flow control when its turn comes, so that the server sends no more than is being taken."""
        if message.reply:
            await self._bus.publish(message.reply)
            return
        if stalled := headers.get("Nats-Consumer-Stalled"):
            await self._bus.publish(stalled)
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._delivered:
            raise FeedLost(f"{int(last) - self._delivered} messages did not arrive")
