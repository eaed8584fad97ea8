"""GET availability through the gateway: 32 clients, one host, 7 days, 30-minute slots, no 304. Goal 1,500/s, p99 60 ms.

make up && .venv/bin/python bench/availability.py
"""

import argparse
import asyncio
from datetime import UTC, datetime, timedelta
from itertools import repeat

from _load import closed_loop, request
from _machine import machine
from _stack import Api, cpu_seconds, spent_between


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--requests", type=int, default=9_000)
    flags.add_argument("--clients", type=int, default=32)
    flags.add_argument("--bookings", type=int, default=20, help="how many bookings lie in the week")
    args = flags.parse_args()
    api = Api()
    working = {"days": ["mon", "tue", "wed", "thu", "fri"], "start": "09:00", "end": "17:00"}
    kind = api.event_type({"name": "Office", "timezone": "Europe/Madrid", "weekly": [working]})
    first = datetime.now(UTC).date() + timedelta(days=1)
    params = f"start={first}&end={first + timedelta(days=6)}"
    path = f"{api.url}/api/v1/event-types/{kind['id']}/availability?{params}"
    week = api.http.get(path).json()
    starts = [slot["start_at"] for day in week["days"] for slot in day["slots"]]
    for start in starts[:: max(1, len(starts) // args.bookings)][: args.bookings]:
        api.post(
            "/bookings",
            {"event_type_id": kind["id"], "start_at": start, "booker_name": "Ada", "booker_email": "ada@example.test"},
        )
    raw = request("GET", path, api.key)
    print(machine())
    for name, count in (("warm-up", 500), ("measured", args.requests)):
        queue = repeat(raw, count)
        before = cpu_seconds()
        result = asyncio.run(closed_loop(api.urls, args.clients, lambda queue=queue: next(queue, None)))  # type: ignore[misc]
        spent = spent_between(before, cpu_seconds())
        print(f"{name}: {result}")
    each = {part: seconds / args.requests * 1000 for part, seconds in spent.items() if seconds}
    print(
        "CPU-ms a request: " + ", ".join(f"{part} {ms:.2f}" for part, ms in sorted(each.items(), key=lambda p: -p[1]))
    )


if __name__ == "__main__":
    main()
