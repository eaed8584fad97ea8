"""Free ports, kept from one start to the next so that clients find the server again."""

import secrets
import socket
from pathlib import Path

# Below every system's range of ephemeral ports. A client that keeps dialling a dead server's port inside that range
# can be given the very port as its own, and then it connects to itself and the server never gets it back.
_LOWEST, _HIGHEST = 15_000, 32_000


def kept_port(file: Path) -> int:
    """The port written in `file` where nobody else listens on it, else a new one, which is written there."""
    if file.exists() and is_free(port := int(file.read_text(encoding="ascii"))):
        return port
    port = free_port()
    file.write_text(str(port), encoding="ascii")
    return port


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on. Chosen at random, so that parallel runs seldom meet."""
    while not is_free(port := _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)):
        pass
    return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
