"""What a stack consists of: which servers are its own, which programs run, in what environment."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from kalends_cli.home import Home
from kalends_cli.problem import Problem
from kalends_shared.servers import Nats, Postgres, Server, Valkey
from kalends_shared.servers.ports import kept_port

SERVICES: Final = ("gateway", "availability", "booking", "webhooks", "calendar_sync")
SERVERS: Final = {  # name -> the setting that names one elsewhere
    "postgres": "KALENDS_DATABASE_URL",
    "nats": "KALENDS_NATS_URL",
    "valkey": "KALENDS_REDIS_URL",
}
# What a stack on one machine needs and no other has: receivers and calendars on plain http and on loopback.
LOCAL: Final = {
    "KALENDS_WEBHOOKS_ALLOW_HTTP": "true",
    "KALENDS_CALENDARS_ALLOW_HTTP": "true",
    "KALENDS_ALLOW_ADDRESSES": "127.0.0.0/8,::1/128",
}


@dataclass(frozen=True)
class Program:
    """A process of the stack; `env` comes on top of the plan's."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """`given`: URLs of servers that are not ours, by name. `setup` runs once, in order, before the services."""

    given: dict[str, str]
    setup: list[Program]
    services: list[Program]
    env: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Plan":
        return cls(
            given=raw["given"],
            setup=[Program(**program) for program in raw["setup"]],
            services=[Program(**program) for program in raw["services"]],
            env=raw["env"],
        )

    def servers(self, home: Home) -> list[Server]:
        """Those the stack runs itself."""
        own = [
            Postgres(home.folder / "postgres", log=home.log("postgres")),
            Nats(home.folder / "nats", log=home.log("nats")),
            Valkey(home.folder / "valkey", log=home.log("valkey")),
        ]
        return [server for server in own if server.name not in self.given]

    def program_env(self, home: Home) -> dict[str, str]:
        """The environment of every program, once the servers have been prepared."""
        urls = {SERVERS[server.name]: server.url for server in self.servers(home)}
        return {**self.env, **{SERVERS[name]: url for name, url in self.given.items()}, **urls}


def standard(home: Home, environ: Mapping[str, str], replicas: Mapping[str, int]) -> Plan:
    """The five services, `replicas` of each (default one)."""
    services = [
        _service(home, service, number) for service in SERVICES for number in range(1, replicas.get(service, 1) + 1)
    ]
    env = {**LOCAL, "KALENDS_RUN_DIR": str(home.run), "KALENDS_SECRET_KEY_FILE": str(home.secret_key())}
    return Plan(
        given=given_servers(home, environ),
        setup=[Program("migrate", python("kalends_cli", "migrate"))],
        services=services,
        env={name: value for name, value in env.items() if name not in environ},
    )


def given_servers(home: Home, environ: Mapping[str, str]) -> dict[str, str]:
    """URLs in the environment, except where they are our own, from sourcing `.kalends/env`."""
    given = {}
    for name, setting in SERVERS.items():
        secret = home.folder / name / "password"
        own = secret.exists() and secret.read_text(encoding="ascii") in environ.get(setting, "")
        if environ.get(setting) and not own:
            given[name] = environ[setting]
    return given


def gateways(plan: Plan) -> list[str]:
    """Where the public door is: a URL for each replica."""
    return [f"http://127.0.0.1:{p.env['KALENDS_HTTP_PORT']}" for p in plan.services if "KALENDS_HTTP_PORT" in p.env]


def python(module: str, *arguments: str) -> list[str]:
    """-P keeps the folder one happens to stand in out of the import path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def _service(home: Home, service: str, number: int) -> Program:
    name = service if number == 1 else f"{service}-{number}"
    env = {"KALENDS_PROCESS_NAME": name}
    if service == "gateway":
        env["KALENDS_HTTP_PORT"] = str(kept_port(home.ports / name))
    return Program(name, python(f"kalends_{service}"), env)


def stored_plan(home: Home) -> Plan:
    """What the stack of this folder was last started as.

    Raises:
        Problem: nothing was.
    """
    raw = home.plan()
    if raw is None:
        raise Problem(f"nothing has been started in {home.folder}; `kalends up` does")
    return Plan.from_dict(raw)


def environment(plan: Plan, home: Home, program: Program | None = None) -> dict[str, str]:
    return {**os.environ, **plan.program_env(home), **(program.env if program else {})}
