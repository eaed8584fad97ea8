"""What the commands say and return, apart from the stack that they speak of."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kalends_cli import rotation
from kalends_cli.__main__ import main
from kalends_cli.commands.up import parse_replicas
from kalends_cli.home import Home
from kalends_cli.memory import tree
from kalends_cli.plan import SERVICES, gateways, standard
from kalends_cli.problem import Problem
from kalends_shared.testkit.waiting import eventually


def test_replicas_are_of_every_service_or_of_one() -> None:
    assert parse_replicas([]) == {}
    assert parse_replicas(["2"]) == dict.fromkeys(SERVICES, 2)
    assert parse_replicas(["2", "calendar-sync=3"]) == dict.fromkeys(SERVICES, 2) | {"calendar_sync": 3}


@pytest.mark.parametrize("wrong", ["0", "many", "booking=", "nobody=2", "-1"])
def test_other_replicas_are_a_problem(wrong: str) -> None:
    with pytest.raises(Problem):
        parse_replicas([wrong])


def test_every_replica_has_a_name_and_every_gateway_a_port_that_it_keeps(home: Home) -> None:
    home.make()
    plan = standard(home, {}, {"gateway": 2, "booking": 2})
    assert [program.name for program in plan.services] == [
        *("gateway", "gateway-2", "availability", "booking", "booking-2", "webhooks", "calendar_sync")
    ]
    assert all(program.env["KALENDS_PROCESS_NAME"] == program.name for program in plan.services)
    assert len(set(gateways(plan))) == 2
    assert gateways(standard(home, {}, {"gateway": 2})) == gateways(plan)


def test_what_the_caller_sets_stands(home: Home) -> None:
    home.make()
    assert "KALENDS_WEBHOOKS_ALLOW_HTTP" in standard(home, {}, {}).env
    assert "KALENDS_WEBHOOKS_ALLOW_HTTP" not in standard(home, {"KALENDS_WEBHOOKS_ALLOW_HTTP": "false"}, {}).env


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The bodies that come to a gateway which makes every key that is asked for."""
    bodies: list[Any] = []

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            answer = b'{"secret": "kal_live_made"}'
            self.send_response(201)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("KALENDS_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("KALENDS_API_KEY", "kal_live_maker")
        yield bodies
        server.shutdown()


def test_a_key_is_made_with_each_scope_that_there_is(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "Website"]) == 0
    assert main(["keys", "create", "Receiver", "--scope", "webhooks", "--scope", "read", "--mode", "test"]) == 0
    assert capsys.readouterr().out.split() == ["kal_live_made"] * 2
    assert asked == [
        {"name": "Website", "scopes": ["read"]},
        {"name": "Receiver", "scopes": ["webhooks", "read"], "mode": "test"},
    ]


def test_status_tells_what_runs(up: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--data-dir", str(up.folder)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("postgres", "nats", "valkey", "one", "two"))
    assert main(["status", "--json", "--data-dir", str(up.folder)]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["phase"] == "ready"
    assert main(["down", "--data-dir", str(up.folder)]) == 0
    assert main(["status", "--data-dir", str(up.folder)]) == 1
    assert main(["down", "--data-dir", str(up.folder)]) == 0
    assert "Nothing runs here" in capsys.readouterr().out


def test_status_asks_the_processes_themselves(up: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (up.folder / "broken").touch()
    assert main(["status", "--json", "--data-dir", str(up.folder)]) == 1
    units = json.loads(capsys.readouterr().out)["units"]
    assert units["one"]["state"] == "unready"
    assert units["postgres"]["state"] == "ready"


def test_nothing_runs_in_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "--data-dir", str(tmp_path / "none")]) == 0
    assert main(["logs", "booking", "--data-dir", str(tmp_path / "none")]) == 1
    assert "no log of booking" in capsys.readouterr().err


def test_logs_are_shown_by_process_and_followed_through_a_rotation(home: Home, tmp_path: Path) -> None:
    home.make()
    home.log("booking").write_text("one\ntwo\nthree\n")
    home.log("webhooks").write_text("four\n")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kalends_cli", "logs", "-f", "-n", "2", "--data-dir", str(home.folder)]
    with out.open("wb") as output, subprocess.Popen(command, stdout=output) as follower:
        try:
            eventually(lambda: "four" in out.read_text())
            assert out.read_text() == "booking  | two\nbooking  | three\nwebhooks | four\n"
            with home.log("booking").open("a") as log:
                log.write("five\nhalf a li")
            eventually(lambda: "booking  | five\n" in out.read_text())
            rotation.rotate(home.log("booking"))
            with home.log("booking").open("a") as log:
                log.write("six\n")
            eventually(lambda: "booking  | six\n" in out.read_text())
        finally:
            follower.kill()


def test_a_large_log_is_put_aside_while_its_writer_goes_on(home: Home) -> None:
    home.make()
    log = home.log("booking")
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        rotation.rotate_large(home.logs, largest=100)
        assert log.stat().st_size == 100
        writer.write(b"y")
        rotation.rotate_large(home.logs, largest=100)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert log.with_name("booking.log.1").read_bytes() == b"x" * 100 + b"y"


def test_memory_is_counted_over_the_whole_tree() -> None:
    child = "import time; data = bytearray(30_000_000); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sizes = tree(os.getpid())
        process.kill()
    assert sizes[process.pid] > 30_000_000
    assert os.getpid() in sizes
