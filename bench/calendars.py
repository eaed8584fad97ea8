"""Reading a CalDAV calendar of 1,000 events into PostgreSQL, from a local Radicale: first, unchanged, with 10 changes.

.venv/bin/python bench/calendars.py        (it runs a PostgreSQL and a Radicale of its own)

vdirsyncer 0.21 takes 1.06, 0.76 and 0.71 s for the same, as a whole process that expands nothing; half of these events
recur, and are expanded for 760 days. Beside it, the parts alone: parsing, expansion, and a booking's consumer.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
from _machine import machine

from kalends_calendar_sync import consumers
from kalends_calendar_sync.domain import synced
from kalends_calendar_sync.domain.busy import horizon
from kalends_calendar_sync.domain.zones import named
from kalends_calendar_sync.handlers.calendars import Calendars
from kalends_calendar_sync.pull import EXPANDED_DAYS, Puller
from kalends_calendar_sync.reach import Reach
from kalends_calendar_sync.schema import SCHEMA
from kalends_shared import migrations
from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import BookingState, EventTypeSnapshot, Policies
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Database
from kalends_shared.net import Policy
from kalends_shared.seal import Keyring
from kalends_shared.servers import Postgres
from kalends_shared.servers.ports import free_port
from kalends_shared.service import run_loop

TENANT = "acc_bench-live"
EVENTS = 1000
HEAD = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:bench\r\n"


def event(number: int, changed: bool = False) -> str:
    day = datetime.now(UTC) + timedelta(days=number % 28)
    rule = "RRULE:FREQ=WEEKLY;BYDAY=MO,WE\r\n" if number % 2 else ""
    start = f"{day:%Y%m%d}T{8 + number % 9 + changed:02d}"
    return (
        f"BEGIN:VEVENT\r\nUID:e{number}@bench\r\nDTSTAMP:20260101T000000Z\r\nDTSTART;TZID=Europe/Madrid:{start}0000\r\n"
        f"DTEND;TZID=Europe/Madrid:{start}3000\r\nSUMMARY:Event {number}\r\nDESCRIPTION:A few words about it.\r\n{rule}"
        "END:VEVENT\r\n"
    )


def calendar(*events: str) -> str:
    return HEAD + "".join(events) + "END:VCALENDAR\r\n"


def parts() -> None:
    context = synced.Context(named("Europe/Madrid") or UTC, frozenset(), horizon(datetime.now(UTC), EXPANDED_DAYS))
    texts = [calendar(event(number)) for number in range(EVENTS)]
    began = time.perf_counter()
    found = [read for text in texts for read in synced.read_object(text, context)]
    seconds = time.perf_counter() - began
    total = sum(len(read.facts.intervals) for read in found if read.facts)
    print(f"parsed and expanded alone: {EVENTS:,} events, {total:,} busy times: {seconds:.2f} s of CPU")


async def consumer(db: Database) -> None:
    """What a booking costs this service where its host has no calendar, in batches as under load."""
    batches = [[_booking(n * 200 + i) for i in range(200)] for n in range(10)]
    began, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        async with db.transaction() as conn:
            await consumers.apply_booking(conn, batch)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"bookings consumed, in batches of 200: {2000 / wall:,.0f}/s, {cpu / 2000 * 1e6:.0f} us of CPU here each")


def _booking(number: int) -> Envelope:
    now = datetime.now(UTC)
    state = BookingState(
        id=ids.derived("bkg", str(number)), created_at=now, updated_at=now, version=1, event_type_id="evt", start_at=now,
        end_at=now + timedelta(hours=1), status="confirmed", seats=1, host_ids=["hst_none"], resource_ids=[],
        person_id="per", person_version="v", hosts=[], policies=Policies(),
        event_type=EventTypeSnapshot(id="evt", slug=None, title="A visit", duration_minutes=60),
    )  # fmt: skip
    return Envelope(
        id=str(number), type="booking.created", source="booking", tenant_id=TENANT, stream_id=state.id, version=1, tx=1,
        position=number, occurred_at=now, state=msgspec.Raw(msgspec.json.encode(state)),
    )  # fmt: skip


async def readings(db: Database, url: str, http: httpx.AsyncClient) -> None:
    async def zone(*_: Any) -> str:
        return "Europe/Madrid"

    async def nothing() -> None: ...

    keyring, policy = Keyring.parse(Keyring.generate()), Policy(["127.0.0.0/8"], allow_http=True)
    body = {"host_id": "hst_1", "provider": "caldav", "url": url, "username": "bench", "password": "bench"}
    call = Call(tenant=TENANT, now=datetime.now(UTC), body=msgspec.json.encode(body))
    await Calendars(db, keyring, policy, {}, zone, nothing).create(call)
    puller = Puller(db, Reach(policy, keyring, 30), poll=60, lease=90, nudge=nothing, edited=lambda: None)

    async def read(what: str) -> None:
        await db.pool.execute("UPDATE cursors SET wake_at = now()")
        cpu, began = time.process_time(), time.perf_counter()
        for lease in await puller.claim(1):
            await puller.work(lease)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - began
        events = await db.pool.fetchval("SELECT count(*) FROM items")
        print(f"{what}: {wall:.2f} s ({cpu:.2f} s of CPU here), {events:,} events known")

    await read("first reading")
    await read("no change")
    for number in range(10):
        (
            await http.put(f"{url}e{number}%40bench.ics", content=calendar(event(number, changed=True)))
        ).raise_for_status()
    await read("10 changes")


async def measure(folder: Path, url: str) -> None:
    postgres = Postgres(folder / "postgres")
    postgres.start()
    try:
        await migrations.migrate(postgres.url, [SCHEMA])
        db = await Database.connect(postgres.url, SCHEMA.name)
        async with httpx.AsyncClient(timeout=60, trust_env=False, auth=("bench", "bench")) as http:
            whole = calendar(*(event(number) for number in range(EVENTS)))
            (await http.put(url, content=whole, headers={"Content-Type": "text/calendar"})).raise_for_status()
            # Radicale computes its sync-token anew after each change, which is no work of ours.
            for name in ("sync-token", "getetag"):
                prop = f'<propfind xmlns="DAV:"><prop><{name}/></prop></propfind>'
                await http.request("PROPFIND", url, headers={"Depth": "1"}, content=prop)
            await readings(db, url, http)
        await consumer(db)
        await db.close()
    finally:
        postgres.stop()


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    print(machine())
    parts()
    folder, port = Path(tempfile.mkdtemp(prefix="kalends-bench-")), free_port()
    command = [
        *(
            sys.executable,
            "-m",
            "radicale",
            "--config",
            "",
            "--server-hosts",
            f"127.0.0.1:{port}",
            "--auth-type",
            "none",
        ),
        *("--storage-filesystem-folder", str(folder / "radicale"), "--logging-level", "error"),
    ]
    server = subprocess.Popen(command, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    try:
        url = f"http://127.0.0.1:{port}/bench/office/"
        while True:
            try:
                httpx.get(url, trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        run_loop(lambda: measure(folder, url))
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
