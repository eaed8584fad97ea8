"""API keys, as the contract has them."""

import asyncio
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gateway_kit import Api, Keyed, Running, Start, Under, bootstrap, problem

from kalends_gateway.identity import Identities
from kalends_gateway.settings import BootstrapSettings
from kalends_gateway.store import keys
from kalends_gateway.usage import Usage
from kalends_shared.db import Database
from kalends_shared.settings import SettingsError, load
from kalends_shared.testkit.waiting import eventually_async


async def test_the_account_behind_the_key(admin: Api, keyed: Keyed) -> None:
    for path in ("/profile", "/me"):
        me = (await admin("GET", path)).json()
        assert me["id"].startswith("acc_")
        assert me == {
            "id": me["id"],
            "name": "Demo",
            "slug": "demo",
            "timezone": "UTC",
            "mode": "live",
            "scopes": ["read", "write", "webhooks", "admin"],
        }
    assert (await (await keyed("write", mode="test"))("GET", "/me")).json()["mode"] == "test"


async def test_a_key_is_made_with_defaults_read_and_listed_without_its_secret(
    gateway: Running, admin: Api, under: Under
) -> None:
    answer = await admin("POST", "/api-keys", {"name": " plain "})
    made = answer.json()
    secret = made["secret"]
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/api-keys/{made['id']}"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["kalends-position"]
    assert re.fullmatch(r"kal_live_[0-9A-Za-z]{43}", secret)
    assert secret.startswith(made["prefix"])
    assert len(made["prefix"]) < 16
    rest = {
        "name": "plain",
        "scopes": ["read"],
        "mode": "live",
        "type": "account",
        "expires_at": None,
        "last_used_at": None,
        "metadata": {},
    }
    assert rest.items() <= made.items()
    assert made["rate_limits"] == {"per_minute": 100, "per_hour": 1000}
    await under(gateway, secret)("GET", "/me")
    one = await admin("GET", f"/api-keys/{made['id']}")
    assert one.json() == made | {"secret": None, "last_used_at": one.json()["last_used_at"]}
    assert one.headers["etag"] == '"1"'
    listed = await admin("GET", "/api-keys?limit=100")
    assert secret not in one.text + listed.text
    assert listed.json()["data"][0]["id"] == made["id"], "newest first"

    async def used() -> bool:
        return (await admin("GET", f"/api-keys/{made['id']}")).json()["last_used_at"] is not None

    await eventually_async(used)


async def test_uses_that_could_not_be_written_are_written_later(
    own_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = (await bootstrap(own_environment))["api_key"]
    db = await Database.connect(own_environment["KALENDS_DATABASE_URL"], "gateway")
    identity = await Identities(db.pool, lease=20).find(secret)
    assert identity is not None
    usage, stop = Usage(db.pool), asyncio.Event()
    stop.set()

    async def away(*_: Any) -> None:
        raise OSError

    usage.note(identity)
    with monkeypatch.context() as patch:
        patch.setattr(keys, "used", away)
        with pytest.raises(OSError):
            await usage.run(stop)
    await usage.run(stop)
    assert await db.pool.fetchval("SELECT last_used_at FROM api_keys WHERE id = $1", identity.key_id) is not None
    await db.close()


async def test_only_the_hash_of_a_secret_is_stored(shared_environment: dict[str, str], admin: Api) -> None:
    import asyncpg

    secret = (await admin.made("/api-keys", {"name": "x"}, headers={"Idempotency-Key": str(uuid.uuid4())}))["secret"]
    conn = await asyncpg.connect(shared_environment["KALENDS_DATABASE_URL"])
    tables = [
        row["table_name"]
        for row in await conn.fetch("SELECT table_name FROM information_schema.tables WHERE table_schema = 'gateway'")
    ]
    dump = "".join([str(await conn.fetch(f"SELECT t::text FROM gateway.{table} t")) for table in tables])
    raw = [bytes(row["body"]) for row in await conn.fetch("SELECT body FROM gateway.idempotency")]
    await conn.close()
    assert "api_keys" in tables
    assert raw
    assert secret not in dump
    assert not any(secret.encode() in body for body in raw)


async def test_both_headers_open_and_nothing_else_does(gateway: Running, keyed: Keyed, under: Under) -> None:
    key = (await keyed("read")).key
    nobody = under(gateway, None)
    for good in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}, {"X-API-Key": f"{key}"}):
        assert (await nobody("GET", "/me", headers=good)).status_code == 200
    bad = [
        {},
        {"Authorization": f"{key}"},
        {"Authorization": f"Bearer {key}x"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
    ]
    bad += [
        {"X-API-Key": "kal_live_wrong"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": b"Bearer \xff\xfe"},
    ]
    for header in bad:
        answer = await nobody("GET", "/me", headers=header)
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    problem(await nobody("GET", "/nowhere"), 401, "unauthenticated")


async def test_what_may_not_be_asked_of_a_key(admin: Api, keyed: Keyed) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    for more, pointer in (
        ({"scopes": ["root"]}, "#/scopes/0"), ({"scopes": []}, "#/scopes"), ({"mode": "demo"}, "#/mode"), ({"type": "king"}, "#/type"), ({"type": "hub"}, "#/type"),
        ({"scopes": "read"}, "#/scopes"), ({"rate_limits": {"per_minute": 0}}, "#/rate_limits/per_minute"), ({"expires_at": past}, "#/expires_at"),
        ({"nonsense": 1}, "#/nonsense"), ({"name": "  "}, "#/name"),
    ):  # fmt: skip
        problem(await admin("POST", "/api-keys", {"name": "x"} | more), 422, "validation_failed", pointer)
    test = await keyed("admin", mode="test")
    problem(await test("POST", "/api-keys", {"name": "x", "mode": "live"}), 422, "validation_failed", "#/mode")
    assert (await test.made("/api-keys", {"name": "x"}))["secret"].startswith("kal_test_"), "a test key makes test keys"


async def test_the_ceiling_of_the_account_holds(shared_environment: dict[str, str], admin: Api) -> None:
    import asyncpg

    conn = await asyncpg.connect(shared_environment["KALENDS_DATABASE_URL"])
    await conn.execute("UPDATE gateway.accounts SET ceiling_per_minute = 50, ceiling_per_hour = 5000")
    try:
        problem(
            await admin("POST", "/api-keys", {"name": "x", "rate_limits": {"per_minute": 51}}),
            422,
            "validation_failed",
            "#/rate_limits/per_minute",
        )
        made = await admin.made("/api-keys", {"name": "x", "rate_limits": {"per_hour": 5000}})
        assert made["rate_limits"] == {"per_minute": 50, "per_hour": 5000}
    finally:
        await conn.execute("UPDATE gateway.accounts SET ceiling_per_minute = NULL, ceiling_per_hour = NULL")
        await conn.close()


async def test_an_expired_key_is_none(shared_environment: dict[str, str], keyed: Keyed) -> None:
    import asyncpg

    expires_at = datetime.now(UTC) + timedelta(hours=1)
    key = await keyed("read", expires_at=expires_at.isoformat())
    assert (await key("GET", "/me")).status_code == 200
    conn = await asyncpg.connect(shared_environment["KALENDS_DATABASE_URL"])
    await conn.execute(
        "UPDATE gateway.api_keys SET expires_at = now() WHERE expires_at = $1", expires_at
    )  # the hour is over
    await conn.close()

    async def refused() -> bool:
        return (await key("GET", "/me")).status_code == 401

    await eventually_async(refused)


async def test_revoked_and_rolled_keys_are_dead_when_that_is_answered(
    admin: Api, keyed: Keyed, gateway: Running, under: Under
) -> None:
    for _ in range(5):
        made = await admin.made("/api-keys", {"name": "x"})
        key = under(gateway, made["secret"])
        assert (await key("GET", "/me")).status_code == 200
        rolled = await admin("POST", f"/api-keys/{made['id']}/roll")
        assert rolled.status_code == 200
        problem(await key("GET", "/me"), 401, "unauthenticated")
        assert {"id": made["id"], "version": 2}.items() <= rolled.json().items()
        key = under(gateway, rolled.json()["secret"])
        assert (await key("GET", "/me")).status_code == 200
        gone = await admin("DELETE", f"/api-keys/{made['id']}")
        assert (gone.status_code, gone.content) == (204, b"")
        problem(await key("GET", "/me"), 401, "unauthenticated")
        for method in ("DELETE", "GET"):
            problem(await admin(method, f"/api-keys/{made['id']}"), 404, "not_found")
        problem(await admin("POST", f"/api-keys/{made['id']}/roll"), 404, "not_found")


async def test_if_match_holds_a_write_to_its_version(admin: Api) -> None:
    made = await admin.made("/api-keys", {"name": "x"})
    at = f"/api-keys/{made['id']}"
    problem(await admin("POST", at + "/roll", headers={"If-Match": '"7"'}), 412, "version_mismatch")
    problem(await admin("POST", at + "/roll", {"x": 1}), 422, "validation_failed", "#/x")
    assert (await admin("POST", at + "/roll", headers={"If-Match": 'W/"1"'})).json()["version"] == 2
    problem(await admin("DELETE", at, headers={"If-Match": '"1"'}), 412, "version_mismatch")
    assert (await admin("GET", at, headers={"If-None-Match": '"2"'})).status_code == 304
    assert (await admin("DELETE", at, headers={"If-Match": '"2"'})).status_code == 204


async def test_the_same_idempotency_key_gives_the_same_answer_without_the_secret(admin: Api) -> None:
    once = {"Idempotency-Key": str(uuid.uuid4())}
    first = await admin("POST", "/api-keys", {"name": "x"}, headers=once)
    again = await admin("POST", "/api-keys", {"name": "x"}, headers=once)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json() == first.json() | {"secret": None}
    assert again.headers["location"] == first.headers["location"]
    problem(await admin("POST", "/api-keys", {"name": "y"}, headers=once), 422, "idempotency_key_reused")
    roll = {"Idempotency-Key": str(uuid.uuid4())}
    at = f"/api-keys/{first.json()['id']}/roll"
    rolled = [(await admin("POST", at, headers=roll)).json() for _ in range(2)]
    assert rolled[1] == rolled[0] | {"secret": None}
    assert rolled[1]["version"] == 2


async def test_fifty_at_once_under_one_idempotency_key_make_one(admin: Api) -> None:
    once = {"Idempotency-Key": str(uuid.uuid4())}
    name = uuid.uuid4().hex
    answers = await asyncio.gather(*[admin("POST", "/api-keys", {"name": name}, headers=once) for _ in range(50)])
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "idempotency_in_flight")
            assert int(answer.headers["retry-after"]) >= 1
    assert {a.status_code for a in answers} - {409} == {201}
    assert [k["name"] for k in (await admin("GET", "/api-keys?limit=100")).json()["data"]].count(name) == 1


async def test_lists_of_keys(keyed: Keyed) -> None:
    test = await keyed("admin", mode="test")
    mine = [(await test.made("/api-keys", {"name": f"k{n}"}))["id"] for n in range(6)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await test("GET", f"/api-keys?limit=2{cursor}")).json()
        seen += [k["id"] for k in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen[:6] == mine[::-1], "newest first"
    assert len(set(seen)) == len(seen)
    assert page["next_cursor"] is None
    numbered = (await test("GET", "/api-keys?page=2&per_page=4")).json()
    assert (numbered["page"], numbered["per_page"], numbered["total"]) == (2, 4, len(seen))
    assert [k["id"] for k in numbered["data"]] == seen[4:8]
    for query, pointer in (
        ("limit=0", "?limit"),
        ("cursor=zzzz", "?cursor"),
        ("page=1&limit=2", "?limit"),
        ("nonsense=1", "?nonsense"),
    ):
        problem(await test("GET", f"/api-keys?{query}"), 422, "validation_failed", pointer)


async def test_another_tenants_key_is_not_there(admin: Api, keyed: Keyed) -> None:
    test = await keyed("admin", mode="test")
    mine = (await admin.made("/api-keys", {"name": "live"}))["id"]
    for method, path in (("GET", mine), ("DELETE", mine), ("POST", f"{mine}/roll")):
        problem(await test(method, f"/api-keys/{path}"), 404, "not_found")
    listed = (await test("GET", "/api-keys?limit=100")).json()["data"]
    assert mine not in [k["id"] for k in listed]
    assert {k["mode"] for k in listed} == {"test"}
    assert (await admin("GET", f"/api-keys/{mine}")).status_code == 200


def test_no_account_is_made_in_a_zone_that_there_is_not() -> None:
    given = {"KALENDS_DATABASE_URL": "postgresql://db", "KALENDS_ACCOUNT_TIMEZONE": "Europe/Madrid"}
    assert load(BootstrapSettings, given).account_timezone == "Europe/Madrid"
    with pytest.raises(SettingsError, match=r"KALENDS_ACCOUNT_TIMEZONE: 'Madrid' is not an IANA time zone"):
        load(BootstrapSettings, given | {"KALENDS_ACCOUNT_TIMEZONE": "Madrid"})


async def test_bootstrap_makes_one_account_and_keeps_a_key_that_opens(
    own_environment: dict[str, str], start: Start, under: Under
) -> None:
    first = await bootstrap(own_environment)
    kept = await bootstrap(own_environment | {"KALENDS_BOOTSTRAP_KEY": first["api_key"], "KALENDS_DATABASE_POOL": "1"})
    same = await bootstrap(own_environment | {"KALENDS_API_KEY": first["api_key"]})
    other = await bootstrap(own_environment | {"KALENDS_BOOTSTRAP_KEY": "kal_live_gone"})
    assert first == kept == same
    assert other["account_id"] == first["account_id"]
    assert other["api_key"] != first["api_key"]
    gateway = await start()
    answer = await under(gateway, other["api_key"])("GET", "/me")
    assert answer.status_code == 200
    assert not [name for name in answer.headers if "ratelimit" in name], "no limit"


@pytest.mark.parametrize(
    "path",
    [
        "/api-keys/key_0",
        "/api-keys/%00",
        "/api-keys/" + "x" * 3000,
        "/api-keys/%F0%9F%92%A9",
        "/api-keys/..%2F..",
        "/hosts/a%00b",
    ],
)
async def test_an_id_that_is_none_is_not_found(admin: Api, path: str) -> None:
    problem(await admin("GET", path), 404, "not_found")
