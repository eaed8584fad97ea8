"""One function a command or query, one transaction each."""
