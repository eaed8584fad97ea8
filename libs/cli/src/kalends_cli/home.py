"""The folder of one local stack (`.kalends/`): what is where, and who runs it.

env              KALENDS_URL, KALENDS_API_KEY and the servers' URLs, to be sourced by a shell
secret_key       seals what the services store; made once
plan.json        what the supervisor was asked to run
state.json       what it runs now, process by process
postgres/ nats/ valkey/    each server's data, configuration, password and port
ports/           the gateways' ports, kept from one start to the next
run/             where each process listens: <name>.ops, <name>.http
logs/            <name>.log of every process, and <name>.log.1 before it
"""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kalends_cli.probe import is_ready
from kalends_shared.servers.process import started_at


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (self.logs, self.run, self.ports):
            part.mkdir(exist_ok=True)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def ports(self) -> Path:
        return self.folder / "ports"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def secret_key(self) -> Path:
        """The file of the key that secrets are sealed by: base64 of 32 random bytes, made at the first call."""
        file = self.folder / "secret_key"
        if not file.exists():
            from kalends_shared.seal import Keyring  # the supervisor, which runs for long, does without

            write_private(file, Keyring.generate() + "\n")
        return file

    def env(self) -> dict[str, str]:
        """What `kalends up` left for others; empty before the first."""
        file = self.folder / "env"
        if not file.exists():
            return {}
        words = shlex.split(file.read_text(encoding="utf-8"), comments=True)
        return dict(word.split("=", 1) for word in words if "=" in word)

    def write_env(self, values: dict[str, str]) -> None:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
        write_private(self.folder / "env", "".join(lines))

    def plan(self) -> dict[str, Any] | None:
        return _read(self.folder / "plan.json")

    def write_plan(self, plan: dict[str, Any]) -> None:
        write_private(self.folder / "plan.json", json.dumps(plan, indent=1))

    def state(self) -> dict[str, Any] | None:
        """The supervisor's last word; it may be dead by now, which `supervisor_pid` knows."""
        return _read(self.folder / "state.json")

    def write_state(self, state: dict[str, Any]) -> None:
        write_private(self.folder / "state.json", json.dumps(state, indent=1))

    def supervisor_pid(self) -> int | None:
        """The supervisor's pid while it lives. A pid alone would not do: pids are used again."""
        state = self.state()
        return state["pid"] if state is not None and started_at(state["pid"]) == state["mark"] else None

    def health(self) -> dict[str, str]:
        """Each process's state by name, asked of itself where it serves; empty where nothing runs.

        `unready` is one that runs and says that it lacks something; `/health/ready` tells what.
        """
        state = self.state() if self.supervisor_pid() is not None else None
        units = {} if state is None else state["units"]
        return {name: self._health(name, unit["state"]) for name, unit in units.items()}

    def _health(self, name: str, state: str) -> str:
        address = self.run / f"{name}.ops"
        return "unready" if state == "ready" and address.exists() and not is_ready(address) else state

    def leftovers(self) -> dict[str, int]:
        """Processes by name that a supervisor started and that still live."""
        state = self.state()
        units = {} if state is None else state["units"]
        return {
            name: unit["pid"]
            for name, unit in units.items()
            if unit["pid"] is not None and started_at(unit["pid"]) == unit["mark"]
        }

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other command brings this stack up or down."""
        self.make()
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Another kalends command is at work here; waiting for it ...", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_private(file: Path, text: str) -> None:
    """Readable by its owner alone, and never seen half written."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as output:
        output.write(text)
    part.replace(file)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content
