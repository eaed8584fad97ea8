"""The one process that everything of a local stack is a child of: `python -m kalends_cli.supervisor FOLDER`.

It starts the servers, then the set-up, then the services, starts again whatever ends, and on SIGTERM ends it all in
the reverse order, letting each drain. What it knows it writes to `state.json`, where the commands read it.

Where the supervisor itself is killed, the kernel ends its children (PR_SET_PDEATHSIG): unlike a pipe that each child
would have to watch, that also holds for servers that are not ours. Where there is no such call (macOS), the pids in
`state.json` let the next `up` or `down` end them. Standard library alone: it runs for as long as the stack, and counts.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kalends_cli import rotation
from kalends_cli.home import Home
from kalends_cli.plan import Plan, Program
from kalends_cli.probe import is_ready
from kalends_shared.servers import Command, Server, spawn
from kalends_shared.servers.process import started_at

FIRST_PAUSE: Final = 0.1  # before a process is started again; doubled each time it does not last
LONGEST_PAUSE: Final = 5.0
LASTING: Final = 20.0  # seconds after which what runs is taken to be well
POLL: Final = 0.03
GRACE: Final = 25.0  # for draining; a service gives itself 15


@dataclass(frozen=True)
class Part:
    """A process to keep. `prepare` and `ready` may block and are called in threads."""

    name: str
    prepare: Callable[[], Command]
    ready: Callable[[], bool]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM


class Unit:
    """Keeps one part running from `start` to `stop`."""

    def __init__(self, part: Part, changed: Callable[[], None]) -> None:
        self.part = part
        self.state = "waiting"
        self.restarts = 0
        self.exit_code: int | None = None
        self.is_ready = asyncio.Event()
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._mark: str | None = None
        self._since = time.time()
        self._stopping = asyncio.Event()
        self._child_ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=self.part.name)

    async def stop(self) -> None:
        """Asks it to end, waits while it drains, and ends it by force where that takes too long."""
        self._stopping.set()
        self._child_ended.set()
        if self._task is not None:
            await self._task

    def child_ended(self) -> None:
        self._child_ended.set()

    def as_dict(self) -> dict[str, Any]:
        runs = self._process is not None and self._process.returncode is None
        return {
            "state": self.state,
            "pid": self._process.pid if self._process is not None and runs else None,
            "mark": self._mark if runs else None,
            "since": self._since,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
        }

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await self._run_once()
            except Exception as error:  # noqa: BLE001 - it could not even be started: written down and tried again
                with self.part.log.open("a", encoding="utf-8") as log:
                    log.write(f"cannot start {self.part.name}: {error}\n")
            if self._stopping.is_set():
                break
            self.restarts += 1
            self._set("restarting")
            pause = FIRST_PAUSE if time.monotonic() - began > LASTING else pause
            await self._stops_within(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self._set("stopped")

    async def _run_once(self) -> None:
        """From start to end of one process."""
        command = await asyncio.to_thread(self.part.prepare)
        if self._stopping.is_set():
            return
        self._child_ended.clear()
        self._process = spawn(command, self.part.log, self.part.stop_signal)
        self._mark = started_at(self._process.pid)
        self._set("starting")
        try:
            while self._process.poll() is None and not self._stopping.is_set():
                if await asyncio.to_thread(self.part.ready):
                    self._set("ready")
                    self.is_ready.set()
                    break
                await self._stops_within(POLL)
            while self._process.poll() is None and not self._stopping.is_set():
                await self._child_ended.wait()
                self._child_ended.clear()
        finally:
            self.is_ready.clear()
            await self._end(self._process)
            self.exit_code = self._process.returncode

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            return
        self._set("stopping")
        process.send_signal(self.part.stop_signal)
        try:
            async with asyncio.timeout(GRACE):
                await _end_of(process, self._child_ended)
        except TimeoutError:
            process.kill()
            await _end_of(process, self._child_ended)

    async def _stops_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _set(self, state: str) -> None:
        self.state, self._since = state, time.time()
        self._changed()


class Supervisor:
    def __init__(self, home: Home, plan: Plan) -> None:
        self.home = home
        self.plan = plan
        self.phase = "servers"
        self._mark = started_at(os.getpid())
        self.servers = [Unit(_server_part(server), self._write) for server in plan.servers(home)]
        self.services = [Unit(self._service_part(program), self._write) for program in plan.services]
        self._stopping = asyncio.Event()
        self._child_ended = asyncio.Event()

    @property
    def units(self) -> list[Unit]:
        return [*self.servers, *self.services]

    async def run(self) -> int:
        """Until SIGTERM (0), or until the set-up fails (1)."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, self._stopping.set)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._write()
        rotating = asyncio.create_task(rotation.run(self.home.logs))
        up = asyncio.create_task(self._up())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([up, stopping], return_when=asyncio.FIRST_COMPLETED)
        failed = up.done() and not up.result()
        if up.done() and not failed:
            await stopping
        up.cancel()
        rotating.cancel()
        await self._down("failed" if failed else "stopped")
        return int(failed)

    async def _up(self) -> bool:
        """Servers, set-up, services; False where the set-up failed."""
        for unit in self.servers:
            unit.start()
        for unit in self.servers:
            await unit.is_ready.wait()
        self._set("setup")
        for program in self.plan.setup:
            if not await self._set_up(program):
                return False
        self._set("services")
        for unit in self.services:
            unit.start()
        for unit in self.services:
            await unit.is_ready.wait()
        self._set("ready")
        return True

    async def _set_up(self, program: Program) -> bool:
        process = spawn(self._command(program), self.home.log(program.name))
        try:
            return await _end_of(process, self._child_ended) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    async def _down(self, phase: str) -> None:
        """The door first, so that what it took in still finds everything behind it; the servers last."""
        self._set("stopping")
        doors = [unit for unit in self.services if unit.part.name.partition("-")[0] == "gateway"]
        for group in (doors, [unit for unit in self.services if unit not in doors], self.servers):
            await asyncio.gather(*(unit.stop() for unit in group))
        self._set(phase)

    def _service_part(self, program: Program) -> Part:
        address = self.home.run / f"{program.name}.ops"

        def prepare() -> Command:
            address.unlink(missing_ok=True)  # of the process before, whose port may be anyone's by now
            return self._command(program)

        return Part(program.name, prepare, lambda: is_ready(address), self.home.log(program.name))

    def _command(self, program: Program) -> Command:
        return Command(program.argv, {**self.plan.program_env(self.home), **program.env})

    def _reap(self) -> None:
        self._child_ended.set()
        for unit in self.units:
            unit.child_ended()

    def _set(self, phase: str) -> None:
        self.phase = phase
        self._write()

    def _write(self) -> None:
        self.home.write_state(
            {
                "pid": os.getpid(),
                "mark": self._mark,
                "phase": self.phase,
                "units": {unit.part.name: unit.as_dict() for unit in self.units},
            }
        )


async def _end_of(process: subprocess.Popen[bytes], child_ended: asyncio.Event) -> int:
    """The exit code, once it has ended; `child_ended` is set whenever any child has."""
    while (code := process.poll()) is None:
        await child_ended.wait()
        child_ended.clear()
    return code


def _server_part(server: Server) -> Part:
    return Part(server.name, server.prepare, server.ready, server.log, server.stop_signal)


def main() -> None:
    home = Home(Path(sys.argv[1]))
    plan = home.plan()
    if plan is None:
        sys.exit(f"{home.folder} has no plan; `kalends up` makes one")
    sys.exit(asyncio.run(Supervisor(home, Plan.from_dict(plan)).run()))


if __name__ == "__main__":
    main()
