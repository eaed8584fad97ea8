"""Child processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Command:
    """What to run: `env` comes on top of the caller's environment, `user` is a uid to drop to (root only)."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    user: int | None = None


def spawn(command: Command, log: Path, death_signal: signal.Signals = signal.SIGTERM) -> subprocess.Popen[bytes]:
    """Starts `command` in a session of its own, its output appended to `log`.

    On Linux the kernel sends it `death_signal` when the calling thread ends, so call this from the main thread.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.env},
            cwd=command.cwd,
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid(), death_signal),  # noqa: PLW1509 - two system calls, no lock
            user=command.user,
            group=command.user,
            extra_groups=None if command.user is None else [],
        )


def started_at(pid: int) -> str | None:
    """A mark of the process that has `pid` now (None: nobody, or a zombie). A reused pid has another mark."""
    if sys.platform != "linux":
        answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return answer.stdout.strip() or None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]


def _dies_with(parent: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    """The hook run between fork and exec, prepared here because the child may not import or allocate much."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    number = int(death_signal)

    def hook() -> None:
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the kernel was told to watch it
            os._exit(1)

    return hook
