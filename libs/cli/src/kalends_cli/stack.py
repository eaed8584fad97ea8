"""Starting, following and ending a stack from the outside. The supervisor does the work; this watches `state.json`."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

from rich.console import Console

from kalends_cli.demo_account import DemoAccount
from kalends_cli.home import Home
from kalends_cli.plan import Plan, gateways, python, stored_plan
from kalends_cli.problem import Problem
from kalends_shared.servers.process import started_at

console: Final = Console(highlight=False)
LOOK: Final = 0.05
MANY_DEATHS: Final = 6  # of one process before the stack was ever ready: it will not come up
_pause: Final = Event()  # nobody sets it: waiting for it is waiting


def start(home: Home, plan: Plan) -> None:
    """Starts a supervisor for `plan`; `follow` waits for what it does."""
    home.make()
    end_leftovers(home)
    for file in home.run.iterdir():
        file.unlink()
    home.write_plan(plan.as_dict())
    with home.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            python("kalends_cli.supervisor", str(home.folder)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while home.supervisor_pid() != process.pid:
        if process.poll() is not None:
            raise Problem(f"the supervisor does not start:\n{tail(home.log('supervisor'))}")
        _pause.wait(LOOK)
    process.returncode = 0  # it goes on without us, so there is nothing left to wait for


def follow(home: Home, timeout: float, after_set_up: Callable[[], None] | None = None) -> None:
    """Tells what becomes ready, until everything is. `after_set_up` is called once, as soon as the schemas are there.

    Raises:
        Problem: it will not come up; what ran is ended.
    """
    told: set[str] = set()
    began = time.monotonic()
    with console.status("Starting ...") as status:
        while True:
            state = home.state()
            if state is None or home.supervisor_pid() is None:
                raise Problem(_epitaph(home, state))
            for name, unit in state["units"].items():
                if unit["state"] == "ready" and name not in told:
                    told.add(name)
                    console.print(f"[green]✓[/] {name:<16}[dim]{time.monotonic() - began:5.1f} s[/]")
            if after_set_up is not None and state["phase"] in {"services", "ready"}:
                after_set_up()
                after_set_up = None
            if state["phase"] == "ready" and all(unit["state"] == "ready" for unit in state["units"].values()):
                return
            waiting = [name for name, unit in state["units"].items() if unit["state"] != "ready"]
            status.update(_doing(state["phase"], waiting))
            lost = [name for name in waiting if state["units"][name]["restarts"] >= MANY_DEATHS and name not in told]
            if lost or time.monotonic() - began > timeout:
                end(home, timeout)
                raise Problem(_reason(home, lost or waiting))
            _pause.wait(LOOK)


def hand_over(home: Home, account: DemoAccount) -> None:
    """Leaves `.kalends/env`, with a key that works, and says where the stack is."""
    plan = stored_plan(home)
    urls = gateways(plan)
    servers = plan.program_env(home)
    values = {name: servers[name] for name in ("KALENDS_DATABASE_URL", "KALENDS_NATS_URL", "KALENDS_REDIS_URL")}
    if urls:
        key = account.key(urls[0])
        values = {"KALENDS_URL": urls[0], "KALENDS_URLS": ",".join(urls), "KALENDS_API_KEY": key, **values}
    home.write_env(values)
    console.print(f"\nKalends is up at [bold]{values.get('KALENDS_URL', '(no gateway)')}[/]")
    env = _shown(home.folder / "env")
    console.print(f"[bold]. {env}[/] sets KALENDS_URL, KALENDS_API_KEY and the servers' URLs.")


def end(home: Home, timeout: float) -> bool:
    """Ends the supervisor and what it runs; False where nothing ran."""
    pid = home.supervisor_pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        with console.status("Ending ..."):
            _gone([pid], timeout)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(end_leftovers(home)) or pid is not None


def end_leftovers(home: Home, grace: float = 20) -> list[str]:
    """Ends what a killed supervisor left behind, by force after `grace` seconds; none, where the kernel did it already."""
    left = home.leftovers()
    for name, pid in left.items():
        # A signal has been on its way to each since the supervisor died; they may be draining.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT if name == "postgres" else signal.SIGTERM)
    if left:
        _gone(list(left.values()), grace)
    for pid in home.leftovers().values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _gone(list(left.values()), 10)
    return list(left)


def replicas(home: Home) -> dict[str, int]:
    names = (program.name.partition("-")[0] for program in stored_plan(home).services)
    return dict(Counter(names))


def tail(log: Path, lines: int = 12) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def _doing(phase: str, waiting: list[str]) -> str:
    return "Migrating ..." if phase == "setup" else f"Starting {', '.join(waiting)} ..."


def _epitaph(home: Home, state: dict[str, Any] | None) -> str:
    if state is not None and state["phase"] == "failed":
        plan = stored_plan(home)
        return "the set-up failed:\n" + "\n".join(tail(home.log(program.name)) for program in plan.setup)
    return f"the supervisor is gone:\n{tail(home.log('supervisor'))}"


def _reason(home: Home, names: list[str]) -> str:
    told = [f"{name} does not come up:\n{tail(home.log(name))}" for name in names]
    return "\n\n".join(told) or "it did not come up in time"


def _gone(pids: list[int], timeout: float) -> None:
    """Returns when none of them lives any more, or after `timeout` seconds."""
    marks = {pid: started_at(pid) for pid in pids}
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up and any(mark and started_at(pid) == mark for pid, mark in marks.items()):
        _pause.wait(LOOK)


def _shown(path: Path) -> str:
    """As one would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
