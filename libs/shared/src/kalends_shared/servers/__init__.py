"""Real PostgreSQL, NATS with JetStream and Valkey out of wheels, for `kalends up` and for tests.

Each server keeps everything under one directory: its data, its configuration, its password and its port, so that a
server started again over the same directory is found at the same URL. All listen on 127.0.0.1 alone and ask for a
password, because a machine has other users.

    server = Nats(directory)
    server.start()            # ready when this returns
    server.url                # nats://kalends:...@127.0.0.1:21234
    server.kill()             # SIGKILL, as a crash would
    server.start()            # same port, same data
    server.stop()
"""

from kalends_shared.servers.nats import Nats
from kalends_shared.servers.postgres import Postgres
from kalends_shared.servers.process import Command, spawn
from kalends_shared.servers.server import Server, ServerError
from kalends_shared.servers.valkey import Valkey

__all__ = ["Command", "Nats", "Postgres", "Server", "ServerError", "Valkey", "spawn"]
