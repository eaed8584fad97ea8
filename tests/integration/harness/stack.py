"""A whole stack of its own, two replicas of every service, driven through the `kalends` command as an operator would."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
SERVICES: Final = ("gateway", "availability", "booking", "webhooks", "calendar_sync")


def wait_for(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """Polls until `look` gives something true; fails the test where it does not in time."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return seen


class Stack:
    """`env` is what `kalends up` left for others; `kill` and `stop` act on the very process of a name."""

    def __init__(self, folder: Path, *, replicas: int = 2, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.replicas = replicas
        self.settings = settings or {}

    def up(self) -> None:
        self._kalends("up", "--replicas", str(self.replicas), "--timeout", "400")

    def down(self) -> None:
        self._kalends("down")

    def _kalends(self, *command: str) -> None:
        args = [sys.executable, "-m", "kalends_cli", command[0], "--data-dir", str(self.folder), *command[1:]]
        done = subprocess.run(
            args, env=os.environ | self.settings, capture_output=True, text=True, timeout=450, check=False
        )
        assert done.returncode == 0, (
            f"kalends {' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}\n{self.last_words()}"
        )

    def last_words(self) -> str:
        """The ends of the logs, for a stack that does not come up."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-600:]}" for log in logs)

    @property
    def env(self) -> dict[str, str]:
        lines = (line.removeprefix("export ").partition("=") for line in (self.folder / "env").read_text().splitlines())
        return {name: value.strip("'\"") for name, _, value in lines}

    @property
    def urls(self) -> list[str]:
        """Every replica of the gateway."""
        env = self.env
        return [url for url in env.get("KALENDS_URLS", env["KALENDS_URL"]).replace(",", " ").split() if url]

    @property
    def key(self) -> str:
        return self.env["KALENDS_API_KEY"]

    @property
    def database(self) -> str:
        return self.env["KALENDS_DATABASE_URL"]

    def units(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state["units"]

    def pid(self, name: str) -> int:
        pid: int = self.units()[name]["pid"]
        return pid

    def freeze(self, name: str) -> int:
        """Stops a process where it is, so that what it holds can be looked at before it dies; gives its pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        return pid

    def kill(self, name: str) -> int:
        """kill -9, frozen or not; gives the pid that died."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, name: str, dead: int, seconds: float = 120) -> None:
        def answers() -> bool:
            unit = self.units()[name]
            return unit["pid"] not in (None, dead) and unit["state"] == "ready"

        wait_for(answers, seconds, f"{name} started again")

    def ops(self, name: str) -> str | None:
        """host:port of a process's operations port."""
        file = self.folder / "run" / f"{name}.ops"
        return file.read_text().strip() if file.exists() else None
