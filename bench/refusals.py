"""Refusals in the database on a contended day: 32 clients want the 20 starts of one host that are all taken. Goal 2,000/s.

.venv/bin/python bench/refusals.py        (it runs a PostgreSQL of its own, fsync on)

Each refusal is booking's own commit, called as a handler calls it; nothing else of the service is in the way.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _machine import machine

from kalends_booking.domain import choosing, placing
from kalends_booking.domain.choosing import Wish
from kalends_booking.domain.decision import Decision
from kalends_booking.domain.placing import Booker
from kalends_booking.schema import SCHEMA
from kalends_booking.store.commit import commit
from kalends_booking.store.people import PersonVersion, new_version
from kalends_shared import migrations
from kalends_shared.contracts.availability import EventType, EventTypeHost
from kalends_shared.contracts.booking import BookingIn
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.ids import new_id
from kalends_shared.contracts.quotes import Quote, QuotedHost, QuotedStart
from kalends_shared.db import Database
from kalends_shared.servers import Postgres
from kalends_shared.service import run_loop

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
STARTS = [NOW + timedelta(days=1, minutes=30 * n) for n in range(20)]
KIND = EventType(
    id=new_id("evt"), created_at=NOW, updated_at=NOW, version=1, title="Visit", duration_minutes=30, slug="visit",
    hosts=[EventTypeHost("hst_one")],
)  # fmt: skip
PERSON = new_id("per")
HOST = QuotedHost(id="hst_one", name="Grace Hopper", email=None, timezone="UTC")


def decision(start: datetime) -> tuple[Decision, PersonVersion]:
    quoted = QuotedStart(start_at=start, end_at=start + timedelta(minutes=30), hosts=[HOST])
    wish = Wish(quote=Quote(quoted_at=NOW, event_type=KIND, timezone="UTC", starts=[quoted]), start=quoted)
    request = BookingIn(event_type_id=KIND.id, start_at=start, booker_name="Ada", booker_email="ada@example.test")
    person = PersonVersion(person_id=PERSON, known=False, version=new_version(), name="Ada", email="ada@example.test")
    booker = Booker(person_id=person.person_id, version=person.version, email=person.email)
    only = choosing.plain(wish)
    assert only is not None
    return placing.create(new_id("bkg"), request, wish, [only], booker, NOW), person


async def load(db: Database, count: int, clients: int) -> Counter[str]:
    """Commits of one host's starts, in turn, from so many clients at once."""
    outcomes: Counter[str] = Counter()
    left = iter(range(count))
    call = Call(tenant="acc_bench-live", now=NOW)

    async def client() -> None:
        for n in left:
            made, person = decision(STARTS[n % len(STARTS)])
            outcome = await commit(db.pool, call, made, person=person)
            outcomes[outcome.kind] += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return outcomes


async def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--requests", type=int, default=10_000)
    flags.add_argument("--clients", type=int, default=32)
    args = flags.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kalends-bench-"))
    postgres = Postgres(folder / "postgres")
    try:
        postgres.start()
        await migrations.migrate(postgres.url, [SCHEMA])
        db = await Database.connect(postgres.url, SCHEMA.name, size=5)
        print(machine())
        while (await load(db, 200, args.clients))["done"]:
            pass  # until every start is taken
        began = time.perf_counter()
        outcomes = await load(db, args.requests, args.clients)
        seconds = time.perf_counter() - began
        print(
            f"refusals: {args.requests / seconds:,.0f}/s ({', '.join(f'{n} x {kind}' for kind, n in outcomes.items())})"
        )
        await db.close()
        if set(outcomes) != {"refused"}:
            raise SystemExit("something was not refused")
    finally:
        postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_loop(main)
