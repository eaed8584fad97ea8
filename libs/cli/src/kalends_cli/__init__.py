"""The kalends command; `commands` tells what it can do."""
