"""A service as the supervisor sees one: writes its address, says that it is ready, drains on SIGTERM.

With a file named by FAKE_BROKEN it exits at once, or, where it runs already, says that it is not ready; with
FAKE_SLOW_DRAIN it takes so many seconds to end.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    status = b"503 Service Unavailable" if broken() else b"200 OK"
    writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
    await writer.drain()
    writer.close()


def broken() -> bool:
    return Path(os.environ["FAKE_BROKEN"]).exists()


def publish(address: str) -> None:
    Path(os.environ["KALENDS_RUN_DIR"], os.environ["KALENDS_PROCESS_NAME"] + ".ops").write_text(address)


def tell_drained() -> None:
    """All of them into one file, whose lines are in the order in which they ended."""
    with Path(os.environ["KALENDS_RUN_DIR"], "drained").open("a") as drained:
        drained.write(os.environ["KALENDS_PROCESS_NAME"] + "\n")


async def main() -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    publish(f"{host}:{port}\n")
    print("started with", os.environ["KALENDS_DATABASE_URL"].rpartition("@")[2], flush=True)
    await ending.wait()
    await asyncio.sleep(float(os.environ.get("FAKE_SLOW_DRAIN", "0")))
    print("drained", flush=True)
    tell_drained()


if broken():
    sys.exit("broken as asked")
asyncio.run(main())
