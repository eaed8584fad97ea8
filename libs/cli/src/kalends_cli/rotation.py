"""Keeps the logs of a stack that runs for weeks from filling a disk.

The processes write straight into their files, which costs nothing while they serve; so a file is rotated under its
writer: copied aside, then emptied. A line written between the two is lost, one in some ten megabytes.
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

LARGEST: Final = 10_000_000
EVERY: Final = 15.0


async def run(folder: Path) -> None:
    """Looks at the logs of `folder` for ever."""
    while True:
        await asyncio.to_thread(rotate_large, folder)
        await asyncio.sleep(EVERY)


def rotate_large(folder: Path, largest: int = LARGEST) -> None:
    for log in folder.glob("*.log"):
        if log.stat().st_size > largest:
            rotate(log)


def rotate(log: Path) -> None:
    """`x.log` -> `x.log.1`, replacing the one that was there."""
    older = log.with_name(f"{log.name}.1")
    part = older.with_suffix(".part")
    shutil.copyfile(log, part)
    os.truncate(log, 0)
    part.replace(older)
