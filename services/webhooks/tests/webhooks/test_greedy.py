"""A receiver may answer without end, by the gigabyte or by the byte: a worker takes of it what it keeps, and no more."""

import asyncio
import gzip
import sys
from pathlib import Path

import pytest

from .receiver import Receiver, Writer
from .rig import Rig
from .workers import WorkerProcess, worker_process

LIMIT_MB = 200
GIGABYTE = 1 << 30
CHUNK = b"x" * 262_144
# 64 times 16 MB of zeros, each packed alone: members one after the other are one file.
BOMB = gzip.compress(bytes(GIGABYTE // 64), 1) * 64
OK = b"HTTP/1.1 200 OK\r\n"
# How much of its gigabyte a receiver gets rid of before the worker hangs up: what the sockets between them hold.
MOST_TAKEN = 64 << 20
EACH = 40
DRIP_SECONDS = 10  # so long each of these is listened to


class Greedy:
    """Answers each in its way, without end; `taken` is the most that was taken of one answer."""

    def __init__(self, receiver: Receiver) -> None:
        self.taken = 0
        receiver.script |= {
            "/length": lambda writer: self._send(writer, OK + b"Content-Length: %d\r\n\r\n" % GIGABYTE, CHUNK),
            "/chunked": lambda writer: self._send(
                writer, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"40000\r\n" + CHUNK + b"\r\n"
            ),
            "/until-closed": lambda writer: self._send(writer, OK + b"\r\n", CHUNK),
            "/head": lambda writer: self._send(writer, OK, b"X: " + CHUNK + b"\r\n"),
            "/interim": lambda writer: self._send(writer, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
            "/trailers": lambda writer: self._send(
                writer, OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"T: 1\r\n" * 40_000
            ),
            "/bomb": self._bomb,
            "/drip": lambda writer: self._drip(writer, OK + b"Content-Length: %d\r\n\r\n" % GIGABYTE, b"."),
            "/drip-chunk": lambda writer: self._drip(writer, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n.\r\n"),
            "/drip-head": lambda writer: self._drip(writer, OK, b"X: y\r\n"),
        }

    async def _send(self, writer: Writer, head: bytes, chunk: bytes) -> None:
        writer.write(head)
        taken = 0
        while taken < GIGABYTE:
            writer.write(chunk)
            await writer.drain()
            taken += len(chunk)
            self.taken = max(self.taken, taken)

    async def _bomb(self, writer: Writer) -> None:
        writer.write(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB)
        await writer.drain()

    async def _drip(self, writer: Writer, head: bytes, drop: bytes) -> None:
        writer.write(head)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.05)


def most_memory(worker: WorkerProcess) -> float:
    """The most that it has held at any time, in MB."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has held at most")
async def test_a_worker_stays_small_whatever_receivers_answer(still: Rig, receiver: Receiver, tmp_path: Path):
    greedy = Greedy(receiver)
    paths = list(receiver.script)
    webhooks = {
        path: await still.subscribe(
            receiver.url(path),
            ["booking.confirmed"],
            timeout_seconds=DRIP_SECONDS if path.startswith("/drip") else 30,
            retry_schedule=[],
        )
        for path in paths
    }
    healthy = await still.subscribe(receiver.url("/healthy"), ["booking.confirmed"])
    async with still.running(still.relay, still.make_consumer(None)), worker_process(still, tmp_path) as worker:
        for _ in range(EACH):
            await still.book()
        await receiver.wait(EACH, "/healthy", seconds=120)
        for path in paths:
            log = await still.ended(webhooks[path], 3, seconds=120)
            attempt = log[-1]["attempts"][0]
            # A head that never ends is no answer; of all others the status counts.
            endless = (None, "protocol_error")
            outcome = {"/head": endless, "/interim": endless, "/drip-head": (None, "timeout")}.get(path, (200, None))
            assert (attempt["status_code"], attempt["error"]) == outcome, path
            assert len(attempt["response_head"] or "") <= 2048
        memory = most_memory(worker)
    assert len(await still.ended(healthy, EACH)) == EACH
    assert memory < LIMIT_MB
    assert greedy.taken < MOST_TAKEN, "it hangs up, and does not read on to throw away"
