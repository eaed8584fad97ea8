"""The kalends command: up, down, status, logs, migrate, keys, tail, replay, rebuild, doctor, listen."""
