"""The running stack, as `make up` left it: where it is, and what its processes have spent."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import httpx

FOLDER = Path(os.environ.get("KALENDS_HOME", ".kalends"))
TICK = os.sysconf("SC_CLK_TCK")
ALWAYS = {
    "name": "Always",
    "timezone": "UTC",
    "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00", "end": "24:00"}],
}


def env() -> dict[str, str]:
    """What .kalends/env exports."""
    words = shlex.split((FOLDER / "env").read_text(), comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


def unit(name: str) -> dict[str, Any]:
    """What the supervisor knows of a process: `state`, `pid`, `restarts`."""
    found: dict[str, Any] = json.loads((FOLDER / "state.json").read_text())["units"][name]
    return found


def cpu_seconds() -> dict[str, float]:
    """CPU seconds (user and system) that each part of the stack has spent so far, its own children included."""
    units: dict[str, Any] = json.loads((FOLDER / "state.json").read_text())["units"]
    return {name: sum(_spent(pid) for pid in _tree(unit["pid"])) for name, unit in units.items() if unit["pid"]}


def _tree(pid: int) -> list[int]:
    out = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            out += _tree(int(child))
    return out


def _spent(pid: int) -> float:
    """A process's own time and that of children which have ended (Postgres's short-lived workers)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / TICK


def spent_between(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before.get(name, 0.0) for name in after}


class Api:
    """Sets things up; the load itself goes through _load."""

    def __init__(self) -> None:
        values = env()
        self.url, self.key = values["KALENDS_URL"], values["KALENDS_API_KEY"]
        self.urls = values.get("KALENDS_URLS", self.url).replace(",", " ").split()
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(f"/api/v1{path}", json=body, headers={"Idempotency-Key": os.urandom(12).hex()})
        answer.raise_for_status()
        made: dict[str, Any] = answer.json()
        return made

    def event_type(self, schedule: dict[str, Any] = ALWAYS, **settings: Any) -> dict[str, Any]:
        made = self.post("/schedules", schedule)
        host = self.post("/hosts", {"name": "Bench", "timezone": schedule["timezone"], "schedule_id": made["id"]})
        body = {"title": f"Bench {os.urandom(6).hex()}", "duration_minutes": 30, "hosts": [{"host_id": host["id"]}]}
        return self.post("/event-types", body | settings)
