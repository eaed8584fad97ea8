"""One module a command: `add(parser)` declares its arguments, `run(arguments)` does it and returns the exit code.

Modules import what is heavy inside `run`, so that `kalends --help` and `kalends status` answer at once.
"""

from typing import Final

COMMANDS: Final = {
    "up": "start the local stack, or find the running one",
    "down": "end the local stack, letting work in flight finish",
    "status": "what runs, since when, where",
    "logs": "what the processes say",
    "migrate": "bring the database's schemas up to this release",
    "keys": "make API keys",
    "tail": "what happens, event by event",
    "replay": "have the last days' events published again",
    "rebuild": "make read models again out of the events, and put right what differs",
    "rewrap": "put stored secrets under the newest secret key",
    "listen": "bring a test account's events to a receiver on this machine",
    "doctor": "what ails the installation: events not applied, consumers that lag",
}
