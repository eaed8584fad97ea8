"""`kalends logs [PROCESS ...] [-f]`: the last lines of each, and with -f whatever comes."""

import argparse
import sys
from pathlib import Path
from threading import Event
from typing import Final

from kalends_cli.home import Home
from kalends_cli.problem import Problem

LOOK: Final = 0.2


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("processes", nargs="*", metavar="PROCESS", help="default: all of them")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    parser.add_argument("-n", "--lines", type=int, default=20, help="lines of each to begin with (default: 20)")


def run(arguments: argparse.Namespace) -> int:
    home = Home(arguments.data_dir)
    files = [home.log(name) for name in arguments.processes] or sorted(home.logs.glob("*.log"))
    if missing := [file.stem for file in files if not file.exists()]:
        raise Problem(f"no log of {', '.join(missing)} in {home.logs}")
    width = max((len(file.stem) for file in files), default=0) if len(files) > 1 else 0
    ends = {file: _show_last(file, arguments.lines, width) for file in files}
    pause = Event()
    while arguments.follow:
        pause.wait(LOOK)
        for file in files:
            ends[file] = _show_from(file, ends[file], width)
    return 0


def _show_last(file: Path, lines: int, width: int) -> int:
    content = file.read_bytes()
    _print(file, b"\n".join(content.splitlines()[-lines:]) if lines else b"", width)
    return len(content)


def _show_from(file: Path, position: int, width: int) -> int:
    """Prints the whole lines after `position` and returns where they end."""
    with file.open("rb") as log:
        if log.seek(0, 2) < position:  # it was rotated
            position = 0
        log.seek(position)
        whole, newline, _ = log.read().rpartition(b"\n")
    _print(file, whole, width)
    return position + len(whole) + len(newline)


def _print(file: Path, content: bytes, width: int) -> None:
    for line in content.decode(errors="replace").splitlines():
        sys.stdout.write(f"{file.stem:<{width}} | {line}\n" if width else f"{line}\n")
    sys.stdout.flush()
