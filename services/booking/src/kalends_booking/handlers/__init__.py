"""One function a command or query; nothing is decided here."""
