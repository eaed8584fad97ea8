"""A gateway's process on real servers: one that the tests share, and others where a test needs its own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import ROOMY, Api, Keyed, Running, Serve, Start, Under, bootstrap, environment, running

from kalends_gateway.schema import SCHEMA
from kalends_shared import nats
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.rpc import Handler, RpcServer
from kalends_shared.testkit.infra import Databases, Infra


@pytest.fixture(scope="session")
def schemas() -> tuple[Any, ...]:
    return (SCHEMA,)


@pytest.fixture(scope="session")
async def shared_environment(
    databases: Databases, schemas: tuple[Any, ...], test_infra: Infra
) -> AsyncIterator[dict[str, str]]:
    url = await databases.create(template=await databases.template(schemas))
    yield environment(url, test_infra.nats, test_infra.redis)
    await databases.drop(url)


@pytest.fixture(scope="session")
async def gateway(
    shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    async with running(shared_environment, tmp_path_factory.mktemp("gateway")) as one:
        yield one


@pytest.fixture(scope="session")
async def admin_key(shared_environment: dict[str, str]) -> str:
    return (await bootstrap(shared_environment))["api_key"]


@pytest.fixture
async def under() -> AsyncIterator[Under]:
    """Clients of a gateway: `under(gateway, key)`."""
    async with AsyncExitStack() as stack:

        def make(one: Running, key: str | None) -> Api:
            api = Api(one.url, key)
            stack.push_async_callback(api.http.aclose)
            return api

        yield make


@pytest.fixture
async def admin(gateway: Running, admin_key: str, under: Under) -> Api:
    """The shared gateway under the bootstrap's key."""
    return under(gateway, admin_key)


@pytest.fixture
async def keyed(gateway: Running, admin: Api, under: Under) -> Keyed:
    """The shared gateway under a new key: `await keyed("read", mode="test")`."""

    async def make(*scopes: str, **settings: Any) -> Api:
        body = {"name": "x", "scopes": list(scopes) or ["admin"], "rate_limits": ROOMY} | settings
        return under(gateway, (await admin.made("/api-keys", body))["secret"])

    return make


@pytest.fixture
def own_environment(database_url: str, nats_url: str, redis_url: str) -> dict[str, str]:
    """Settings of gateways with a database of their own."""
    return environment(database_url, nats_url, redis_url)


@pytest.fixture
async def start(own_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Start]:
    """Starts gateways of this test's own."""
    async with AsyncExitStack() as stack:

        async def go(name: str = "gateway", more: Mapping[str, str] | None = None) -> Running:
            return await stack.enter_async_context(running(own_environment | dict(more or {}), tmp_path, name))

        yield go


@pytest.fixture
async def serve(nats_url: str) -> AsyncIterator[Serve]:
    """Answers a service's methods: `await serve("booking", get_booking=handler)` gives the list of calls that come."""
    async with AsyncExitStack() as stack:

        async def go(service: str, **handlers: Handler) -> list[Call]:
            calls: list[Call] = []

            def heard(handler: Handler) -> Handler:
                async def hear(call: Call) -> Reply:
                    calls.append(call)
                    return await handler(call)

                return hear

            bus = await nats.connect(nats_url, service)
            stack.push_async_callback(bus.close)
            server = RpcServer(bus, service, {name: heard(handler) for name, handler in handlers.items()})
            await server.start()
            stack.push_async_callback(server.stop, 1)
            return calls

        yield go
