"""`kalends status`: exits with 0 where everything is ready, else with 1."""

import argparse
import json
import time
from typing import Any

from kalends_cli.home import Home
from kalends_cli.memory import pss


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    home = Home(arguments.data_dir)
    state = home.state() if home.supervisor_pid() is not None else None
    if state is None:
        print(json.dumps({"phase": "down", "units": {}}) if arguments.json else "Nothing runs here.")
        return 1
    health = home.health()
    for name, found in health.items():
        state["units"][name]["state"] = found
    if arguments.json:
        print(json.dumps(state, indent=2))
    else:
        _show(home, state)
    return 0 if state["phase"] == "ready" and all(found == "ready" for found in health.values()) else 1


def _show(home: Home, state: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("process", "state", "pid", "for", "restarts", "MB", "listens on", box=None, header_style="bold")
    for name, unit in state["units"].items():
        memory = pss(unit["pid"]) if unit["pid"] else None
        table.add_row(
            name,
            f"[green]{unit['state']}[/]" if unit["state"] == "ready" else f"[yellow]{unit['state']}[/]",
            str(unit["pid"] or ""),
            _span(time.time() - unit["since"]),
            str(unit["restarts"]),
            f"{memory / 1e6:.0f}" if memory else "",
            " ".join(
                f"{file.suffix[1:]} {file.read_text(encoding='ascii').strip()}" for file in _addresses(home, name)
            ),
        )
    Console().print(table)


def _addresses(home: Home, name: str) -> list[Any]:
    return sorted(home.run.glob(f"{name}.*"))


def _span(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
