"""Idempotency-Key on every POST that changes anything: one effect, one answer, whichever service it is."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
from harness.client import ALWAYS, Client, booking, slot, until
from harness.sink import Sink

from kalends_shared.contracts.endpoints import ENDPOINTS

# What a body of an action may always hold, to be another body.
REASON: Final = {"reason": "another"}
SECRETS: Final = {"secret"}
# What refuses to be done again, and with what.
REFUSED_AGAIN: Final = {
    "/event-types": "slug_in_use",
    "/booking-pages": "slug_in_use",
    "/holds": "slot_taken",
    "/bookings": "slot_taken",
    "/bookings/{id}/cancel": "invalid_state",
    "/bookings/{id}/approve": "invalid_state",
    "/bookings/{id}/decline": "invalid_state",
    "/bookings/{id}/no-show": "invalid_state",
    "/bookings/{id}/complete": "invalid_state",
    "/bookings/{id}/reassign": "invalid_state",
}


class Rig:
    """Things to post to, each new where the post uses it up."""

    def __init__(self, api: Client, test: Client, host: str, other: str, kinds: dict[str, str], hook: str) -> None:
        self.api, self.test = api, test
        self.host, self.other, self.kinds, self.hook = host, other, kinds, hook
        self._slots = iter(range(400))

    def at(self) -> str:
        return slot(next(self._slots))

    async def booked(self, kind: str = "plain", **more: Any) -> str:
        answer = await self.api.persist("/bookings", booking(self.kinds[kind], self.at(), **more))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def begun(self) -> str:
        """A booking of the test tenant that has started."""
        await self.test.ok("POST", "/test-clock", {"release": True})
        made = await self.test.book(self.kinds["test"], start := self.at())
        await self.test.ok("POST", "/test-clock", {"freeze_at": start})
        return str(made.json()["id"])

    async def delivered(self) -> str:
        await self.booked()

        async def some() -> Any:
            page = await self.api.ok("GET", f"/webhooks/{self.hook}/deliveries", params={"status": "succeeded"})
            return page["data"]

        return str((await until(some, 180, "a delivery"))[0]["id"])


Recipe = Callable[[Rig], Awaitable[tuple[Client, str, Any, Any]]]


def plain(path: str, body: dict[str, Any], other: dict[str, Any]) -> Recipe:
    """A POST to a fixed path; `other` is what the other body has instead."""

    async def recipe(rig: Rig) -> tuple[Client, str, Any, Any]:
        named = {"slug": f"e-{uuid.uuid4().hex[:12]}"} if path in {"/event-types", "/booking-pages"} else {}
        return rig.api, path, body | named, body | named | other

    return recipe


def action(name: str, body: dict[str, Any] | None = None, kind: str = "plain") -> Recipe:
    async def recipe(rig: Rig) -> tuple[Client, str, Any, Any]:
        return rig.api, f"/bookings/{await rig.booked(kind)}/{name}", body or {}, (body or {}) | REASON

    return recipe


def begun(name: str) -> Recipe:
    async def recipe(rig: Rig) -> tuple[Client, str, Any, Any]:
        return rig.test, f"/bookings/{await rig.begun()}/{name}", {}, REASON

    return recipe


async def _moved(rig: Rig) -> tuple[Client, str, Any, Any]:
    start = rig.at()
    return rig.api, f"/bookings/{await rig.booked()}/reschedule", {"start_at": start}, {"start_at": start} | REASON


async def _given(rig: Rig) -> tuple[Client, str, Any, Any]:
    one = await rig.booked("either", host_id=rig.host)
    return rig.api, f"/bookings/{one}/reassign", {"host_id": rig.other}, {"host_id": rig.other} | REASON


async def _booked(rig: Rig) -> tuple[Client, str, Any, Any]:
    body = booking(rig.kinds["plain"], rig.at())
    return rig.api, "/bookings", body, body | {"booker_name": "Other"}


async def _held(rig: Rig) -> tuple[Client, str, Any, Any]:
    body = {"event_type_id": rig.kinds["plain"], "start_at": rig.at()}
    return rig.api, "/holds", body, body | {"ttl_seconds": 60}


async def _event_type(rig: Rig) -> tuple[Client, str, Any, Any]:
    body = {"title": "Visit", "duration_minutes": 30, "hosts": [{"host_id": rig.host}], "slug": uuid.uuid4().hex}
    return rig.api, "/event-types", body, body | {"title": "Other"}


async def _page(rig: Rig) -> tuple[Client, str, Any, Any]:
    body = {"slug": uuid.uuid4().hex, "title": "Page", "event_type_ids": [rig.kinds["plain"]]}
    return rig.api, "/booking-pages", body, body | {"title": "Other"}


async def _event(rig: Rig) -> tuple[Client, str, Any, Any]:
    body = {"host_id": rig.host, "title": "Away", "start_at": slot(600), "end_at": slot(602)}
    return rig.api, "/events", body, body | {"title": "Other"}


async def _calendar(rig: Rig) -> tuple[Client, str, Any, Any]:
    body = {"host_id": rig.other, "provider": "caldav", "url": f"https://dav.example.com/{uuid.uuid4().hex}/"}
    return rig.api, "/calendars", body, body | {"reads_busy": False}


async def _synced(rig: Rig) -> tuple[Client, str, Any, Any]:
    api, path, body, _ = await _calendar(rig)
    made = await api.ok("POST", path, body)
    return rig.api, f"/calendars/{made['id']}/sync", None, {"x": 1}


async def _rolled(rig: Rig) -> tuple[Client, str, Any, Any]:
    made = await rig.api.ok("POST", "/api-keys", {"name": "Rolled"})
    return rig.api, f"/api-keys/{made['id']}/roll", None, {"x": 1}


async def _retried(rig: Rig) -> tuple[Client, str, Any, Any]:
    return rig.api, f"/deliveries/{await rig.delivered()}/retry", None, {"x": 1}


def hooked(name: str, body: dict[str, Any], other: dict[str, Any]) -> Recipe:
    async def recipe(rig: Rig) -> tuple[Client, str, Any, Any]:
        return rig.api, f"/webhooks/{rig.hook}/{name}", body, other

    return recipe


async def _clock(rig: Rig) -> tuple[Client, str, Any, Any]:
    await rig.test.ok("POST", "/test-clock", {"release": True})
    await rig.test.ok("POST", "/test-clock", {"freeze_at": slot(500)})
    return rig.test, "/test-clock", {"advance_seconds": 60}, {"advance_seconds": 120}


RECIPES: Final[dict[str, Recipe]] = {
    "/api-keys": plain("/api-keys", {"name": "Key"}, {"name": "Other"}),
    "/api-keys/{id}/roll": _rolled,
    "/test-clock": _clock,
    "/hosts": plain("/hosts", {"name": "Grace"}, {"name": "Other"}),
    "/schedules": plain("/schedules", ALWAYS, {"name": "Other"}),
    "/locations": plain("/locations", {"name": "Shop"}, {"name": "Other"}),
    "/resources": plain("/resources", {"name": "Room"}, {"name": "Other"}),
    "/event-types": _event_type,
    "/booking-pages": _page,
    "/holds": _held,
    "/bookings": _booked,
    "/bookings/{id}/cancel": action("cancel"),
    "/bookings/{id}/reschedule": _moved,
    "/bookings/{id}/approve": action("approve", kind="asked"),
    "/bookings/{id}/decline": action("decline", kind="asked"),
    "/bookings/{id}/no-show": begun("no-show"),
    "/bookings/{id}/complete": begun("complete"),
    "/bookings/{id}/reassign": _given,
    "/bookings/{id}/payment": action("payment", {"status": "paid"}),
    "/bookings/{id}/recordings": action("recordings", {"url": "https://x.test/r"}),
    "/calendars": _calendar,
    "/calendars/{id}/sync": _synced,
    "/events": _event,
    "/webhooks": plain(
        "/webhooks", {"url": "https://x.test/h", "events": ["*"], "enabled": False}, {"description": "Other"}
    ),
    "/webhooks/{id}/rotate-secret": hooked("rotate-secret", {}, {"immediate": True}),
    "/webhooks/{id}/test": hooked("test", {"type": "booking.created"}, {"type": "booking.cancelled"}),
    "/webhooks/{id}/replay": hooked("replay", {}, {"only_failed": True}),
    "/deliveries/{id}/retry": _retried,
}


def test_there_is_a_recipe_for_every_post() -> None:
    posts = {one.path for one in ENDPOINTS if one.method == "POST" and one.idempotency != "none"}
    assert posts == RECIPES.keys()
    assert {one.path for one in ENDPOINTS if one.method == "POST"} - posts == {"/availability/query"}


async def test_one_effect_and_one_answer_under_a_key(api: Client, receiver: Sink) -> None:
    host, other = await api.host(), await api.host()
    made = await api.ok("POST", "/api-keys", {"name": "Test", "mode": "test", "scopes": ["admin"]})
    several = {"hosts": [{"host_id": host}, {"host_id": other}], "assignment": "any"}
    hook = await api.ok("POST", "/webhooks", {"url": receiver.url, "events": ["booking.created"]})
    async with Client(api.urls, made["secret"]) as test:
        kinds = {
            "plain": await api.event_type(host),
            "asked": await api.event_type(host, requires_confirmation=True),
            "either": await api.event_type("", **several),
            "test": await test.event_type(),
        }
        rig = Rig(api, test, host, other, kinds, hook["id"])
        for path, recipe in RECIPES.items():
            await _again(*await recipe(rig), path)
            await _at_once(*await recipe(rig), path)
        await test.ok("POST", "/test-clock", {"release": True})
    await api.ok("DELETE", f"/webhooks/{hook['id']}")


async def _again(client: Client, path: str, body: Any, other: Any, name: str) -> None:
    key = str(uuid.uuid4())
    first = await client.call("POST", path, body, key=key)
    assert first.is_success, (name, first.text)
    assert "idempotent-replayed" not in first.headers, name
    again = await client.call("POST", path, body, key=key)
    assert again.headers.get("idempotent-replayed") == "true", (name, again.text)
    kept = {member: None if member in SECRETS else value for member, value in first.json().items()}
    assert (again.status_code, again.json()) == (first.status_code, kept), name
    for header in ("etag", "location", "kalends-position"):
        assert again.headers.get(header) == first.headers.get(header), (name, header)
    reused = await client.call("POST", path, other, key=key)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused"), (name, reused.text)
    wrong = await client.call("POST", path, {"nonsense": 1}, key=key)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "idempotency_key_reused"), (name, wrong.text)
    if (code := REFUSED_AGAIN.get(name)) is not None:
        await _refused(client, path, body, code)


async def _refused(client: Client, path: str, body: Any, code: str) -> None:
    """The operation's own 409 is the answer ever after."""
    key = str(uuid.uuid4())
    first, again = [await client.call("POST", path, body, key=key) for _ in range(2)]
    assert (first.status_code, first.json()["code"]) == (409, code), (path, first.text)
    assert "idempotent-replayed" not in first.headers
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (409, "true"), (path, again.text)
    assert again.content == first.content, path  # as it was told, the request's id too


async def _at_once(client: Client, path: str, body: Any, _: Any, name: str) -> None:
    key = str(uuid.uuid4())
    wrong = await client.call("POST", path, {"nonsense": 1}, key=key)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "validation_failed"), (
        name,
        wrong.text,
    )  # and stores nothing
    answers = await asyncio.gather(*(client.call("POST", path, body, key=key) for _ in range(8)))
    done = [one for one in answers if one.is_success]
    assert sum("idempotent-replayed" not in one.headers for one in done) == 1, (name, [_told(one) for one in answers])
    waiting = {_told(one) for one in answers if not one.is_success}
    assert waiting <= {"409 idempotency_in_flight"}, (name, waiting)
    assert all("retry-after" in one.headers for one in answers if not one.is_success), name


def _told(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.json().get('code')}"
