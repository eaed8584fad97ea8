"""Whole worker processes, as an operator runs them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from kalends_shared.testkit.waiting import eventually_async

from . import rig as rigs
from .rig import Rig

FENCED = "kalends_webhooks_fenced_total"
START_SECONDS = 120  # on a machine that is busy with other things


class WorkerProcess:
    """One that is ready. `process` is what a test signals."""

    def __init__(self, process: asyncio.subprocess.Process, ops: str) -> None:
        self.process, self._ops = process, ops

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient(timeout=60) as client:
            text = (await client.get(f"http://{self._ops}/metrics")).text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    async def told_to_end(self) -> None:
        """Tells it, and returns once it has heard."""
        self.process.send_signal(signal.SIGTERM)

        async def heard() -> bool:
            async with httpx.AsyncClient(timeout=60) as client:
                return "drain" in (await client.get(f"http://{self._ops}/health/ready")).json()["problems"]

        await eventually_async(heard)


@asynccontextmanager
async def worker_process(rig: Rig, folder: Path, name: str = "worker") -> AsyncIterator[WorkerProcess]:
    """`python -m kalends_webhooks --role deliver`; `folder` is for its address."""
    environment = os.environ | {
        "KALENDS_DATABASE_URL": rig.db.url,
        "KALENDS_NATS_URL": str(rig.bus.connected_url.geturl()),
        "KALENDS_SECRET_KEY": rigs.KEY,
        "KALENDS_WEBHOOKS_ALLOW_HTTP": "true",
        "KALENDS_ALLOW_ADDRESSES": "127.0.0.0/8",
        "KALENDS_LOG_LEVEL": "warning",
        "KALENDS_RUN_DIR": str(folder),
        "KALENDS_PROCESS_NAME": name,
        "KALENDS_SHUTDOWN_SECONDS": "60",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kalends_webhooks", "--role", "deliver", env=environment
    )
    try:

        async def ready() -> bool:
            return (folder / f"{name}.ops").exists()

        await eventually_async(ready, START_SECONDS)
        yield WorkerProcess(process, (folder / f"{name}.ops").read_text().strip())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
