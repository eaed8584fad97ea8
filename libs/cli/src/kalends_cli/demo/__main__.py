"""`python -m kalends_cli.demo`: its own stack under .kalends/demo, the story, and nothing left running.

Exits 0 where every step is as it should be, 1 otherwise.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from kalends_cli.demo.peers import calendar_server, webhook_receiver
from kalends_cli.demo.show import Show, StepError
from kalends_cli.demo.story import Story, next_tuesday


def main() -> int:
    """Runs the demo; its stack stands apart from that of `make up`."""
    flags = argparse.ArgumentParser(prog="kalends demo", description=__doc__)
    flags.add_argument(
        "--data-dir", type=Path, default=Path(".kalends/demo"), help="where its stack lives (emptied first)"
    )
    folder: Path = flags.parse_args().data_dir.absolute()
    console = Console(highlight=False)
    began = time.monotonic()
    console.print(
        "[bold]Kalends[/bold]: a first booking through all five services, on real PostgreSQL, NATS, Valkey and CalDAV."
    )
    kalends(folder, "down", quiet=True)
    shutil.rmtree(folder, ignore_errors=True)
    show = Show(console)
    failure = run(show, folder)
    stopped = kalends(folder, "down", quiet=True) == 0
    if failure is None and not stopped:
        failure = "the stack did not stop"
    console.print()
    if failure is not None:
        console.print(f"[bold red]✗ {failure}[/bold red]\n  The logs are in {folder}/logs.")
        return 1
    took = time.monotonic() - began
    console.print(f"[bold green]All {show.checks} checks hold.[/bold green] {took:.1f} s; nothing is left running.")
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def run(show: Show, folder: Path) -> str | None:
    """Brings the stack up and tells the story; gives what went wrong, or None."""
    today = datetime.now(UTC).date()
    try:
        if kalends(folder, "up") != 0:
            return "the stack did not start"
        url, key = read_env(folder / "env")
        with (
            calendar_server(folder / "radicale", today - timedelta(days=14)) as calendars,
            webhook_receiver() as receiver,
        ):
            Story(show, url, key, calendars, receiver, next_tuesday(today)).tell()
    except StepError as failed:
        return str(failed)
    except KeyboardInterrupt:
        return "interrupted"
    return None


def kalends(folder: Path, command: str, *, quiet: bool = False) -> int:
    """Runs a kalends command on the demo's own stack; gives its exit code."""
    out = subprocess.DEVNULL if quiet else None
    args = [sys.executable, "-m", "kalends_cli", command, "--data-dir", str(folder)]
    # The story shows the alternatives of a refusal, also where they take long.
    env = {"KALENDS_ALTERNATIVES_SECONDS": "8"} | os.environ
    return subprocess.run(args, stdout=out, stderr=out, env=env, check=False).returncode


def read_env(path: Path) -> tuple[str, str]:
    """(KALENDS_URL, KALENDS_API_KEY) of the running stack."""
    lines = (one.removeprefix("export ").partition("=") for one in path.read_text().splitlines() if "=" in one)
    values = {name.strip(): value.strip().strip("'\"") for name, _, value in lines}
    return values["KALENDS_URL"], values["KALENDS_API_KEY"]


if __name__ == "__main__":
    sys.exit(main())
