"""What the three servers have in common: a directory, a port, a password, a process."""

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Event
from typing import ClassVar

from kalends_shared.servers.ports import kept_port
from kalends_shared.servers.process import Command, spawn

_POLL = 0.02


class ServerError(Exception):
    """A server that cannot be started; the message ends with the last lines of its log."""


class Server(ABC):
    """One server over one directory.

    `prepare` and `ready` are what a supervisor needs, which runs the command itself; `start`, `stop` and `kill` are
    for those who own the process, tests above all.

    Args:
        directory: where it keeps its data, configuration, password and port; made where it is missing.
        log: file that its output is appended to; default `<name>.log` in the directory.
        durable: False trades the survival of power cuts for speed. What was acknowledged survives `kill` either way.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path, *, log: Path | None = None, durable: bool = True) -> None:
        self.directory = directory.absolute()
        self.log = log or self.directory / f"{self.name}.log"
        self.durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._served = False

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, password included. Known from the first `prepare` on."""

    @abstractmethod
    def _prepare(self) -> Command: ...

    @abstractmethod
    def _greets(self, connection: socket.socket) -> bool:
        """Whether the server behind a fresh connection serves clients already."""

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def port(self) -> int:
        return int((self.directory / "port").read_text(encoding="ascii"))

    @property
    def password(self) -> str:
        return (self.directory / "password").read_text(encoding="ascii")

    @property
    def pid(self) -> int | None:
        """The process started by `start`, while it runs."""
        return self._process.pid if self._process is not None and self.alive() else None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> Command:
        """Makes the directory ready and says what to run; call it before every start.

        Once it has served, its port stays: clients know it, and what still holds it for a moment is its own remains.

        Raises:
            ServerError: where the data cannot be made.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._served:
            kept_port(self.directory / "port")
        secret = self.directory / "password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(24), encoding="ascii")
        return self._prepare()

    def ready(self) -> bool:
        """One look, at most a second: does it serve clients?"""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                serves = self._greets(connection)
        except OSError:
            return False
        self._served = self._served or serves
        return serves

    def start(self, timeout: float = 120) -> None:
        """Starts it and returns when it serves clients; one that dies while it starts is started again.

        A crashed server may need that: PostgreSQL refuses to start until the last process of the crashed one is gone.

        Raises:
            ServerError: not ready after `timeout` seconds.
        """
        if self.alive():
            return
        give_up = time.monotonic() + timeout
        wait = Event()
        while time.monotonic() < give_up:
            if not self.alive():
                self._process = spawn(self.prepare(), self.log, self.stop_signal)
            wait.wait(_POLL)
            if self.ready() and self.alive():
                return
        self.kill()
        raise ServerError(f"{self.name} was not ready after {timeout:g} s:\n{self.last_words()}")

    def stop(self, timeout: float = 20) -> None:
        """Ends it in order, and by force where that takes longer than `timeout` seconds."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Does `kill -9` to the process that `start` started; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Stops it and throws its data away; the port and the password stay. `start` makes it anew, empty."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def last_words(self, lines: int = 15) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.directory}>"
