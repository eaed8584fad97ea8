"""The servers of a test run as Docker containers (KALENDS_TEST_INFRA=containers), with the pins of the wheels.

Testcontainers is imported only here and only when asked for; its reaper ends what a killed run leaves behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from kalends_shared.servers.pins import NATS_IMAGE, POSTGRES_IMAGE, VALKEY_IMAGE

_NATS_CONFIG = b'max_payload: 8MB\njetstream { store_dir: "/tmp/jetstream" }\n'


@contextmanager
def postgres() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(POSTGRES_IMAGE, username="kalends", dbname="kalends", driver=None)
    container.with_env("POSTGRES_INITDB_ARGS", "--locale-provider=builtin --builtin-locale=C.UTF-8 --encoding=UTF8")
    container.with_command("postgres -c max_connections=300 -c fsync=off -c timezone=UTC")
    with container:
        yield container.get_connection_url()


@contextmanager
def nats() -> Iterator[str]:
    from testcontainers.community.nats import NatsContainer

    container = NatsContainer(NATS_IMAGE)
    container.with_copy_into_container(_NATS_CONFIG, "/tmp/kalends.conf")  # noqa: S108 - inside the container
    container.with_command("--config /tmp/kalends.conf")
    with container:
        yield container.nats_uri()


@contextmanager
def valkey() -> Iterator[str]:
    from testcontainers.community.valkey import ValkeyContainer

    with ValkeyContainer(VALKEY_IMAGE) as container:
        yield container.get_connection_url().replace("valkey://", "redis://") + "/0"
