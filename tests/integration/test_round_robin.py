"""Round robin is fair over time, by weight and within a priority, and each booking's history tells why its host was chosen."""

from collections import Counter
from typing import Any

from harness.client import Client, booking, slot

WEIGHTS = [100, 100, 200]
BOOKINGS = 12


async def test_bookings_are_shared_out_by_weight_and_the_reason_is_told(api: Client) -> None:
    equals = [await api.host() for _ in WEIGHTS]
    reserve = await api.host()
    hosts = [{"host_id": one, "weight": weight} for one, weight in zip(equals, WEIGHTS, strict=True)]
    named = [*hosts, {"host_id": reserve, "weight": 1000, "priority": 1}]
    kind = await api.event_type("", hosts=named, assignment="round_robin")
    served: Counter[str] = Counter()
    unseen = 0
    for n in range(BOOKINGS):
        made, why = await book(api, kind, slot(n))
        (host,) = made["host_ids"]
        assert (why["method"], why["among"], host) == ("round_robin", 4, why["candidates"][0]["host_id"])
        figures = why["candidates"][0]["rank"]
        assert (figures["weights"], figures["weight"]) == (400, dict(zip(equals, WEIGHTS, strict=True))[host])
        # It is its turn: nobody of its priority is further behind.
        behind = [c["rank"]["shortfall"] for c in why["candidates"] if c["host_id"] != reserve]
        assert figures["shortfall"] == max(behind)
        served[host] += 1
        unseen += n - figures["of"]
    assert why["candidates"][-1]["host_id"] == reserve
    # Another replica may know the latest bookings a moment later: each that it had not seen may be one too many.
    for host, weight in zip(equals, WEIGHTS, strict=True):
        assert abs(served[host] - BOOKINGS * weight / 400) <= 1 + unseen, (served, unseen)

    # Who comes after them by priority serves when all of them are taken.
    start = slot(BOOKINGS)
    takers = [(await book(api, kind, start))[0]["host_ids"][0] for _ in named]
    assert (set(takers[:3]), takers[3]) == (set(equals), reserve)
    refused = await api.call("POST", "/bookings", booking(kind, start))
    assert (refused.status_code, refused.json()["rule"]) == (409, "busy")


async def book(api: Client, kind: str, start: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A booking, and why it has its host, once availability knows of it."""
    answer = await api.call("POST", "/bookings", booking(kind, start))
    assert answer.status_code == 201, answer.text
    seen = {"Kalends-Min-Position": answer.headers["kalends-position"]}
    day = {"start": start[:10], "end": start[:10]}
    await api.ok("GET", f"/event-types/{kind}/availability", params=day, headers=seen)
    made = answer.json()
    history = await api.ok("GET", f"/bookings/{made['id']}/history", headers=seen)
    return made, history["data"][0]["data"]["assignment"]
