"""The frame of a process: order of start and teardown, drain, supervised tasks, health; in real processes where signals count."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.request import urlopen

import httpx
import msgspec
import pytest

from kalends_shared import service as frame
from kalends_shared.ops import Health, OpsServer
from kalends_shared.service import Service
from kalends_shared.settings import Settings
from kalends_shared.testkit.waiting import eventually, eventually_async


async def told(server: OpsServer, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.get(f"http://{server.address}{path}")


async def test_health_tells_what_is_wrong() -> None:
    health = Health()
    server = OpsServer(health)
    server.start()
    assert (await told(server, "/health/live")).status_code == 200
    assert (await told(server, "/health/ready")).json() == {"ok": False, "problems": {"start": "starting"}}
    health.set("start", None)
    assert (await told(server, "/health/ready")).status_code == 200
    health.set("nats", "gone")
    assert (await told(server, "/health/ready")).json()["problems"] == {"nats": "gone"}
    health.set("nats", None)
    health.draining = True
    assert (await told(server, "/health/ready")).status_code == 503
    metrics = await told(server, "/metrics")
    assert "kalends_ready 0.0" in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain")
    assert (await told(server, "/nowhere")).status_code == 404
    server.stop()


async def test_it_answers_while_the_main_loop_is_stuck_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kalends_shared.ops.STUCK_SECONDS", 0.3)
    health = Health()
    server = OpsServer(health)
    server.start()
    beat = asyncio.create_task(health.beat(0.05))

    async def live() -> bool:
        return (await told(server, "/health/live")).status_code == 200

    await eventually_async(live)
    url = f"http://{server.address}/health/live"
    done = subprocess.run(  # noqa: ASYNC221 - the loop is to be stuck
        [sys.executable, "-c", f"import time, urllib.request; time.sleep(0.6); urllib.request.urlopen({url!r})"],
        capture_output=True,
        check=False,
    )
    assert b"503" in done.stderr
    await eventually_async(live)
    beat.cancel()
    server.stop()


async def test_a_failing_task_is_started_again_and_readiness_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "BACKOFF", (0.01, 0.02))
    one: Service[Settings] = Service("probe", Settings())
    one.health.set("start", None)
    runs = 0
    mended = asyncio.Event()

    async def work(stop: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        if not mended.is_set():
            raise OSError("no database")
        await stop.wait()

    async with one._teardown:
        one.supervise("relay", work)

        async def again() -> bool:
            return runs >= 3

        await eventually_async(again)
        assert one.health.problems() == {"relay": "OSError: no database"}
        mended.set()

        async def ready() -> bool:
            return one.health.ready

        await eventually_async(ready)
        before = runs
    assert runs == before, "a stopped task is not started again"


async def test_what_was_opened_last_is_closed_first() -> None:
    order: list[str] = []
    one: Service[Settings] = Service("probe", Settings())

    async def close(name: str) -> None:
        order.append(name)

    async def work(stop: asyncio.Event) -> None:
        await stop.wait()
        order.append("task")

    async with one._teardown:
        one.defer(lambda: close("database"))
        one.supervise("task", work)
        one.defer(lambda: close("server"))
        await asyncio.sleep(0.01)
    assert order == ["server", "task", "database"]


PROCESS = """
import asyncio
from kalends_shared.service import Service, run
from kalends_shared.settings import Settings

async def main(service):
    async def work(stop):
        await stop.wait()
        await asyncio.sleep(0.3)
        print("work ended", flush=True)
    async def close():
        print("closed", flush=True)
    service.defer(close)
    service.supervise("work", work)
    MORE

run("probe", Settings, main)
"""


def begin(folder: Path, more: str = "") -> subprocess.Popen[str]:
    script = folder / "probe.py"
    script.write_text(textwrap.dedent(PROCESS).replace("MORE", more))
    env = os.environ | {"KALENDS_RUN_DIR": str(folder), "KALENDS_DRAIN_SECONDS": "0.3"}
    return subprocess.Popen(
        [sys.executable, str(script)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_sigterm_drains_and_ends_in_order(tmp_path: Path) -> None:
    process = begin(tmp_path)
    eventually((tmp_path / "probe.ops").exists)
    address = (tmp_path / "probe.ops").read_text().strip()
    with urlopen(f"http://{address}/health/ready", timeout=30) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.split("\n")[:2]) == (0, ["work ended", "closed"])
    events = [msgspec.json.decode(line)["event"] for line in err.splitlines()]
    assert [e for e in events if e in {"started", "draining", "stopped"}] == ["started", "draining", "stopped"]


def test_sigterm_during_the_start_ends_it_too(tmp_path: Path) -> None:
    process = begin(tmp_path, "print('waiting', flush=True); await asyncio.sleep(100)")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.split("\n")[-2]) == (0, "closed")


def test_a_start_that_fails_is_told_and_exits_with_1(tmp_path: Path) -> None:
    process = begin(tmp_path, "raise ValueError('boom')")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "closed" in out
    assert "boom" in err


def test_the_settings_can_be_printed(tmp_path: Path) -> None:
    script = tmp_path / "probe.py"
    script.write_text(PROCESS.replace("MORE", ""))
    done = subprocess.run(
        [sys.executable, str(script), "settings"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "#KALENDS_OPS_PORT=0\n" in done.stdout
