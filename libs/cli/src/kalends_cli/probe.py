"""A look at a process's operations port, in a few lines of socket, because an HTTP client would weigh on the supervisor."""

import socket
from pathlib import Path
from typing import Final

SECONDS: Final = 1.0  # that an answer may take


def is_ready(address_file: Path) -> bool:
    """Whether the process that wrote `host:port` into the file says that it is ready for work."""
    return get(address_file, "/health/ready") == 200


def get(address_file: Path, path: str) -> int | None:
    """The status of a GET at the address in the file; None where nobody answers in time."""
    try:
        host, _, port = address_file.read_text(encoding="ascii").strip().rpartition(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return int(connection.recv(64).split()[1])
    except (OSError, ValueError, IndexError):
        return None
