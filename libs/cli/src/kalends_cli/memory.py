"""Memory as it is shared: PSS divides a page among those that have it, where RSS counts PostgreSQL's many times."""

from collections import defaultdict
from pathlib import Path


def pss(root: int) -> int | None:
    """Bytes of a process and all that descend from it; None where the system does not tell (other than Linux)."""
    sizes = tree(root)
    return sum(sizes.values()) if sizes else None


def tree(root: int) -> dict[int, int]:
    """PSS in bytes by pid: the process and all that descend from it."""
    children = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children[int(fields[1])].append(int(status.parent.name))
    sizes, waiting = {}, [root]
    while waiting:
        pid = waiting.pop()
        waiting += children[pid]
        if (size := _pss(pid)) is not None:
            sizes[pid] = size
    return sizes


def _pss(pid: int) -> int | None:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), None)
