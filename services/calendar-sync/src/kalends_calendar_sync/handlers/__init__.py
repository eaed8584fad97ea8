"""One function a command or query."""
