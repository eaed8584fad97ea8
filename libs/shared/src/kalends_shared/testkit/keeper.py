"""Keeps the PostgreSQL of one test run: `python -m kalends_shared.testkit.keeper RUN_DIRECTORY embedded|containers`.

The command returns when the server is ready; a process that it leaves behind holds the server, and ends with the
process that owns the run: asked by it, or, where that one was killed, by seeing it gone. Then it also removes the
run's directory. The server in turn ends with its keeper.
"""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from kalends_shared.servers import Postgres
from kalends_shared.servers.process import started_at

_LOOK = 0.3
_pause = Event()  # nobody sets it: waiting for it is waiting


def sign(run: Path) -> None:
    """Names the calling process the owner of `run`."""
    (run / "owner").write_text(f"{os.getpid()} {started_at(os.getpid())}", encoding="ascii")


def dismiss(run: Path) -> None:
    """Ends the keeper of `run`, if it has one, and returns when it is gone."""
    pid_file = run / "keeper.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text(encoding="ascii"))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while started_at(pid) is not None:
        _pause.wait(0.02)


def main() -> int:
    run, mode = Path(sys.argv[1]), sys.argv[2]
    child = os.fork()
    if child == 0:
        os._exit(_keep(run, mode))
    (run / "keeper.pid").write_text(str(child), encoding="ascii")
    while not (run / "postgres.url").exists():
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return 1
        _pause.wait(0.02)
    return 0


def _keep(run: Path, mode: str) -> int:
    """In the process that stays, away from the terminal and from the pipes of the one that started it."""
    os.setsid()
    log = os.open(run / "keeper.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for descriptor in (0, 1, 2):
        os.dup2(log, descriptor)
    asked_to_end = Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())
    try:
        with _server(run, mode) as url:
            writing = run / "postgres.url.new"
            writing.write_text(url, encoding="utf-8")
            writing.rename(run / "postgres.url")
            owned = _owner(run)
            while not asked_to_end.wait(_LOOK) and owned():
                pass
    except Exception:  # noqa: BLE001 - the last stop: the one that waits prints this log
        traceback.print_exc()
        return 1
    if not asked_to_end.is_set():
        shutil.rmtree(run, ignore_errors=True)
    return 0


@contextmanager
def _server(run: Path, mode: str) -> Iterator[str]:
    if mode == "containers":
        from kalends_shared.testkit import containers

        with containers.postgres() as url:
            yield url
        return
    server = Postgres(run / "postgres", durable=False, connections=300)
    server.start()
    try:
        yield server.url
    finally:
        server.kill()  # nobody reads its data again, so it need not put them in order


def _owner(run: Path) -> Callable[[], bool]:
    pid, mark = (run / "owner").read_text(encoding="ascii").split()
    return lambda: started_at(int(pid)) == mark


if __name__ == "__main__":
    sys.exit(main())
