"""What is deleted while it is booked: refused, or, in the very same moment, a booking that lives on without it."""

import asyncio
from typing import Any

from harness.client import Client, booking, slot, until
from harness.judge import Judge
from harness.sink import Sink
from harness.stack import Stack

BLOCKED = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))"
TRIES = 20


async def booked_and_deleted(stack: Stack, api: Client, tenant: str) -> dict[str, Any] | None:
    """A booking whose commit waits for its host while its event type is deleted; None where it would not wait so long."""
    host = await api.host()
    kind = await api.event_type(host)
    guard, looker = Judge(stack.database), Judge(stack.database)
    try:
        async with guard.undone() as held:
            await held.execute("SET LOCAL search_path TO booking")
            await held.execute("SELECT lock_keys($1, $2)", tenant, [host])
            booked = asyncio.create_task(api.book(kind, slot(1)))

            async def waits() -> bool:
                return bool(await looker.value(BLOCKED, held.get_server_pid())) or booked.done()

            await until(waits, 180, "a commit that waits for its host")
            deleted = await api.persist(f"/event-types/{kind}", None, method="DELETE")
        answer = await booked
    finally:
        await guard.close()
        await looker.close()
    if (deleted.status_code, answer.status_code) == (204, 201):
        made: dict[str, Any] = answer.json()
        return made
    # Either it is booked, and in use, or it is not there to be booked.
    assert (deleted.status_code, answer.status_code) in {(409, 201), (204, 422)}, (deleted.text, answer.text)
    return None


async def test_a_booking_outlives_the_event_type_that_is_deleted_as_it_is_made(
    stack: Stack, api: Client, receiver: Sink
) -> None:
    account = await api.ok("GET", "/profile")
    await api.ok("POST", "/webhooks", {"url": receiver.url, "events": ["*"]})
    for _ in range(TRIES):
        if made := await booked_and_deleted(stack, api, f"{account['id']}-{account['mode']}"):
            break
    assert made is not None
    one, kind = made["id"], made["event_type_id"]
    assert (await api.call("GET", f"/event-types/{kind}")).status_code == 404
    assert (await api.ok("GET", f"/bookings/{one}"))["status"] == "confirmed"
    assert [row["id"] for row in (await api.ok("GET", "/bookings", params={"event_type_id": kind}))["data"]] == [one]
    # Its host is busy then, and in use.
    other = await api.event_type(made["host_ids"][0])
    refused = await api.persist("/bookings", booking(other, slot(1)))
    assert (refused.status_code, refused.json()["code"]) == (409, "slot_taken")

    refused = await api.persist(f"/bookings/{one}/reschedule", {"start_at": slot(3)})
    assert (refused.status_code, refused.json()["code"]) == (409, "inactive")
    assert (await api.ok("PATCH", f"/bookings/{one}", {"booker_name": "Grace"}))["booker_name"] == "Grace"
    assert (await api.persist(f"/bookings/{one}/cancel", {})).status_code == 200

    told = ["booking.created", "booking.confirmed", "booking.updated", "booking.cancelled"]

    def mine() -> list[Any]:
        return [body for body in receiver.bodies() if body["data"].get("booking", {}).get("id") == one]

    async def arrived() -> bool:
        return {body["type"] for body in mine()} >= set(told)

    await until(arrived, 180, "its webhooks")
    assert {body["data"]["event_type"]["id"] for body in mine()} == {kind}
    history = (await api.ok("GET", f"/bookings/{one}/history"))["data"]
    assert [row["type"] for row in history] == ["booking.created", "booking.updated", "booking.cancelled"]
