"""The local stack heals whatever dies in it, is found by those who ask for it again, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from kalends_cli import stack
from kalends_cli.home import Home
from kalends_cli.plan import Plan, Program, given_servers, stored_plan
from kalends_cli.problem import Problem
from kalends_shared.servers.ports import is_free
from kalends_shared.testkit.infra import Infra
from kalends_shared.testkit.waiting import eventually


def alive(pid: int) -> bool:
    """A zombie, which some parent has yet to notice, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def unit(home: Home, name: str) -> dict[str, object]:
    state = home.state()
    assert state is not None
    found: dict[str, object] = state["units"][name]
    return found


def pids(home: Home) -> list[int]:
    state = home.state()
    assert state is not None
    return [state["pid"], *(unit["pid"] for unit in state["units"].values())]


def kill_hard(pid: object) -> None:
    assert isinstance(pid, int)
    os.kill(pid, 9)


async def test_up_serves_and_down_ends_everything(up: Home) -> None:
    connection = await asyncpg.connect(stored_plan(up).program_env(up)["KALENDS_DATABASE_URL"])
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()
    assert "set up" in up.log("migrate").read_text()
    ran = pids(up)
    assert all(map(alive, ran))

    assert stack.end(up, 120)

    assert not any(map(alive, ran))
    assert "drained" in up.log("one").read_text()
    assert not stack.end(up, 120)  # nothing is left to be ended


@pytest.mark.parametrize("victim", ["postgres", "nats", "valkey", "one"])
def test_what_is_killed_comes_back_where_it_was(up: Home, victim: str) -> None:
    env = stored_plan(up).program_env(up)
    before = unit(up, victim)

    kill_hard(before["pid"])

    eventually(lambda: unit(up, victim)["restarts"] != 0 and unit(up, victim)["state"] == "ready")
    after = unit(up, victim)
    assert after["pid"] != before["pid"]
    # PostgreSQL does not start again until the last process of the one that was killed is gone.
    assert after["exit_code"] == -signal.SIGKILL or (victim == "postgres" and after["restarts"] != 1)
    assert stored_plan(up).program_env(up) == env  # the same ports and passwords
    others = [name for name in ("postgres", "nats", "valkey", "one", "two") if name != victim]
    assert all(unit(up, name)["restarts"] == 0 for name in others)


def test_what_keeps_failing_is_tried_again_ever_more_slowly_and_then_well(up: Home) -> None:
    (up.folder / "broken").touch()
    kill_hard(unit(up, "one")["pid"])
    eventually(lambda: int(str(unit(up, "one")["restarts"])) >= 3)
    (up.folder / "broken").unlink()
    eventually(lambda: unit(up, "one")["state"] == "ready")


def test_a_second_start_finds_the_running_one(up: Home) -> None:
    before = pids(up)
    stack.follow(up, 180)
    assert pids(up) == before
    assert up.supervisor_pid() == before[0]


def test_a_killed_supervisor_takes_everything_with_it(up: Home) -> None:
    ran = pids(up)
    kill_hard(ran[0])
    eventually(lambda: not any(map(alive, ran)))
    assert up.supervisor_pid() is None


def test_what_outlives_a_killed_supervisor_is_ended_by_the_next_start(home: Home, plan: Plan) -> None:
    """A service that takes long to drain does; so would everything where the kernel does not tell the children."""
    slow = Program("one", plan.services[0].argv, plan.services[0].env | {"FAKE_SLOW_DRAIN": "600"})
    stack.start(home, Plan(plan.given, plan.setup, [slow], plan.env))
    stack.follow(home, 180)
    survivor = unit(home, "one")["pid"]
    os.kill(pids(home)[0], signal.SIGKILL)
    eventually(lambda: home.supervisor_pid() is None)
    assert alive(int(str(survivor)))

    stack.end_leftovers(home, grace=0.5)

    assert not alive(int(str(survivor)))
    stack.start(home, plan)
    stack.follow(home, 180)


def test_a_stack_that_cannot_come_up_says_why_and_ends(home: Home, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "MANY_DEATHS", 2)
    home.make()
    (home.folder / "broken").touch()
    stack.start(home, plan)
    with pytest.raises(Problem, match="broken as asked"):
        stack.follow(home, 180)
    assert home.supervisor_pid() is None
    assert home.leftovers() == {}


def test_a_failing_set_up_is_told_and_ends_it(home: Home, plan: Plan) -> None:
    failing = [Program("migrate", [sys.executable, "-c", "raise SystemExit('no such schema')"])]
    stack.start(home, Plan(plan.given, failing, plan.services, plan.env))
    with pytest.raises(Problem, match="no such schema"):
        stack.follow(home, 180)
    eventually(lambda: home.leftovers() == {})


def test_data_survives_down_and_up_at_the_same_address(up: Home, plan: Plan) -> None:
    url = plan.program_env(up)["KALENDS_DATABASE_URL"]
    psql = [sys.executable, "-c", f"import asyncio, asyncpg; asyncio.run(asyncpg.connect({url!r}))"]
    stack.end(up, 120)
    assert subprocess.run(psql, capture_output=True, check=False).returncode != 0
    stack.start(up, plan)
    stack.follow(up, 180)
    port = int(str(urlsplit(url).port))
    if stored_plan(up).program_env(up)["KALENDS_DATABASE_URL"] != url:
        assert not is_free(port), "else the address is kept"  # another has taken it meanwhile
    else:
        assert subprocess.run(psql, capture_output=True, check=False).returncode == 0


def test_given_servers_are_used_and_not_started(home: Home, plan: Plan, test_infra: Infra) -> None:
    given = {
        "postgres": test_infra.postgres,
        "nats": test_infra.nats,
        "valkey": test_infra.redis,
    }
    stack.start(home, Plan(given, plan.setup, plan.services, plan.env))
    stack.follow(home, 180)
    state = home.state()
    assert state is not None
    assert set(state["units"]) == {"one", "two"}
    assert given["postgres"].rpartition("@")[2] in home.log("one").read_text()


def test_a_sourced_env_is_not_mistaken_for_other_servers(up: Home) -> None:
    own = stored_plan(up).program_env(up)
    assert given_servers(up, own) == {}
    assert given_servers(up, {"KALENDS_NATS_URL": "nats://elsewhere:4222"}) == {"nats": "nats://elsewhere:4222"}


def test_secrets_are_for_their_owner_alone(up: Home) -> None:
    up.secret_key()
    up.write_env({"KALENDS_API_KEY": "it's secret"})
    assert up.env() == {"KALENDS_API_KEY": "it's secret"}
    private = [up.folder / name for name in ("secret_key", "env", "plan.json", "postgres/password", "nats/nats.conf")]
    assert [oct(file.stat().st_mode & 0o777) for file in private] == ["0o600"] * len(private)
    assert oct(up.folder.stat().st_mode & 0o777) == "0o700"


def test_without_root_it_runs_as_well(tmp_path: Path) -> None:
    """Root becomes a user of a namespace, whose files stay within reach; others are not root anyway."""
    script = (
        "import os, sys; from pathlib import Path; from kalends_cli import stack; from kalends_cli.home import Home; "
        "from kalends_cli.plan import Plan; assert os.geteuid() != 0; home = Home(Path(sys.argv[1])); "
        "stack.start(home, Plan({}, [], [], {})); stack.follow(home, 180); stack.end(home, 120)"
    )
    user = ["unshare", "--user", "--map-user=1000", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*user, sys.executable, "-c", script, str(tmp_path / "kalends")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "postgres" in done.stdout


def test_the_door_drains_before_what_it_leads_to_ends(home: Home, plan: Plan) -> None:
    door = Program("gateway", plan.services[0].argv, {"KALENDS_PROCESS_NAME": "gateway", "FAKE_SLOW_DRAIN": "0.5"})
    stack.start(home, Plan(plan.given, plan.setup, [plan.services[0], door], plan.env))
    stack.follow(home, 180)
    stack.end(home, 120)
    assert (home.run / "drained").read_text().split() == ["gateway", "one"]
