"""One line about the machine that a figure was measured on."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor, cores, memory, kernel, Python."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    model = names[0] if names else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory} GiB, Linux {platform.release()}, Python {platform.python_version()}"
