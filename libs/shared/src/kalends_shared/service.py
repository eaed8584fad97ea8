'''The frame that every service runs in: settings, telemetry, health, ordered start, drain, teardown in reverse.

A service's whole `__main__.py` is its composition root; nothing else wires. It reads like this:

    """The booking service: settings -> adapters -> handlers -> serve."""

    from kalends_booking import rpc
    from kalends_booking.schema import SCHEMA
    from kalends_booking.settings import BookingSettings
    from kalends_shared.backends import open_backends, serve
    from kalends_shared.relay import Relay
    from kalends_shared.rpc import RpcClient
    from kalends_shared.service import Service, run


    async def main(service: Service[BookingSettings]) -> None:
        db, bus = await open_backends(service, SCHEMA)
        service.supervise("relay", Relay("booking", service.settings.direct_url, SCHEMA.name, bus, enrich=people.join).run)
        await serve(service, bus, rpc.handlers(db, RpcClient(bus)))


    if __name__ == "__main__":
        run("booking", BookingSettings, main)

`main` opens things and returns; the frame then says it is ready and waits for SIGTERM. Each `defer` and `supervise` is
torn down in the reverse of its order.
'''

import asyncio
import gc
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from kalends_shared import telemetry
from kalends_shared.ops import Health, OpsServer
from kalends_shared.settings import Settings, SettingsError, describe, load

S = TypeVar("S", bound=Settings)
BACKOFF: Final = (0.1, 5.0)  # seconds before a failed task is started again: the first, the most
STEADY_SECONDS: Final = 30.0  # a task that has run for so long has recovered
WATCH_SECONDS: Final = 2.0
# What a request makes is freed by its reference counts, but for a few cycles. Looking for those at every 700 objects, as
# Python does by itself, is a twentieth of a booking's work.
COLLECT_AT: Final = (20_000, 20, 100)
MOST_FILES: Final = 65_536


class Service(Generic[S]):
    """One running process of a service: its settings, its health, and what is torn down when it ends."""

    def __init__(self, name: str, settings: S) -> None:
        self.name = name
        self.process = settings.process_name or name
        self.settings = settings
        self.health = Health()
        self.stopping = asyncio.Event()
        self._teardown = AsyncExitStack()

    def defer(self, close: Callable[[], Awaitable[Any]]) -> None:
        """Has `close` awaited at the end, before whatever was deferred earlier."""
        self._teardown.push_async_callback(close)

    def supervise(self, name: str, work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Runs `work(stop)` for as long as the process lives, again after a growing pause where it fails.

        While it is down, readiness names it. At teardown `stop` is set, and the task awaited, cancelled past the time allowed.
        """
        stop = asyncio.Event()
        task = asyncio.create_task(self._keep(name, work, stop), name=name)

        async def end() -> None:
            stop.set()
            _, late = await asyncio.wait([task], timeout=self.settings.shutdown_seconds)
            if late:
                task.cancel()
                await asyncio.wait([task], timeout=1)

        self._teardown.push_async_callback(end)

    def watch(self, name: str, check: Callable[[], Awaitable[Any]]) -> None:
        """Asks a dependency every two seconds whether it is there, by a call that raises where it is not; readiness tells."""

        async def look(stop: asyncio.Event) -> None:
            while not stop.is_set():
                try:
                    async with asyncio.timeout(WATCH_SECONDS):
                        await check()
                    self.health.set(name, None)
                except Exception as error:  # noqa: BLE001 - whatever it raises, it is not there
                    self.health.set(name, telemetry.brief(error)[:200])
                await wait(stop, WATCH_SECONDS)

        self.supervise(f"watch {name}", look)

    def publish(self, what: str, address: str) -> None:
        """Logs where the process listens, and leaves it in the run folder as `<process>.<what>`."""
        telemetry.log("listening", what=what, address=address)
        if self.settings.run_dir is not None:
            folder = Path(self.settings.run_dir)
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{self.process}.{what}"
            part.write_text(address + "\n", encoding="utf-8")
            part.replace(folder / f"{self.process}.{what}")

    async def serve(self, main: Callable[["Service[S]"], Awaitable[None]]) -> None:
        """Starts, waits for the end, and tears down, whatever happens in between."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.set_exception_handler(_unhandled)
        ops = OpsServer(self.health, self.settings.ops_host, self.settings.ops_port)
        ops.start()
        beat = asyncio.create_task(self.health.beat(), name="heartbeat")
        try:
            async with self._teardown:
                starting = asyncio.ensure_future(main(self))
                stopping = asyncio.create_task(self.stopping.wait())
                await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait([starting])
                else:
                    await starting
                    gc.collect()
                    gc.set_threshold(*COLLECT_AT)
                    gc.freeze()  # what is there now stays; looking through it again would stop all work for tens of ms
                    self.health.set("start", None)
                    self.publish("ops", ops.address)
                    telemetry.log("started", pid=os.getpid())
                    await stopping
                    self.health.draining = True
                    telemetry.log("draining")
                    await asyncio.sleep(self.settings.drain_seconds)
        finally:
            beat.cancel()
            ops.stop()
            telemetry.log("stopped")

    def _stop(self, number: int) -> None:
        if self.stopping.is_set() and number == signal.SIGINT:
            os._exit(128 + number)  # Ctrl-C again: whoever sits there does not want to wait
        self.stopping.set()

    async def _keep(self, name: str, work: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
        loop, pause = asyncio.get_running_loop(), BACKOFF[0]
        while not stop.is_set():
            began = loop.time()
            try:
                steady = loop.call_later(1.0, self.health.set, name, None)
                await work(stop)
                steady.cancel()
                if stop.is_set():
                    return
                raise RuntimeError(f"{name} ended by itself")
            except Exception as error:  # noqa: BLE001 - this is where every failure of a background task ends
                steady.cancel()
                if stop.is_set():
                    return
                telemetry.failed("task.failed", error, task=name)
                self.health.set(name, telemetry.brief(error)[:200])
            pause = BACKOFF[0] if loop.time() - began > STEADY_SECONDS else pause
            await wait(stop, pause * random.uniform(0.75, 1.25))
            pause = min(pause * 2, BACKOFF[1])


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Sleeps, unless the event is set before, `stop` above all; tells whether it is."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def run(name: str, kind: type[S], main: Callable[[Service[S]], Awaitable[None]]) -> None:
    """Runs a service until SIGTERM. Exits with 2 where the settings are wrong, 1 where it cannot start.

    `python -m kalends_X settings` prints what can be set instead, as a commented file.
    """
    if sys.argv[1:] == ["settings"]:
        sys.stdout.write(describe(kind))
        return
    settings = load_or_exit(kind)
    telemetry.setup(name, settings)
    allow_connections()
    try:
        run_loop(lambda: Service(name, settings).serve(main))
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        telemetry.failed("cannot run", error)
        sys.exit(1)
    finally:
        telemetry.shutdown()


def allow_connections(most: int = MOST_FILES) -> None:
    """Raises the soft limit of open files, of which each connection is one, as far as the system lets it: often it is 1,024."""
    try:
        import resource
    except ImportError:
        return  # a platform without such limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if wanted > soft != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as error:
            telemetry.log("files.limited", "warning", limit=soft, error=str(error))


def load_or_exit(kind: type[S]) -> S:
    """The settings; where they are wrong, says what is and exits with 2."""
    try:
        return load(kind)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - nothing is set up yet by which to log
        sys.exit(2)


def run_loop(main: Callable[[], Awaitable[None]]) -> None:
    """Runs a coroutine on uvloop, where the platform has it."""

    async def whole() -> None:
        await main()

    try:
        from uvloop import new_event_loop
    except ImportError:
        asyncio.run(whole())
        return
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(whole())


def _unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, BaseException):
        telemetry.failed(context.get("message", "unhandled"), error)
    else:
        telemetry.log(context.get("message", "unhandled"), "error")
