"""A storm: random commands from many clients on what they have made so far, over few slots that all of them want."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import httpx

from harness.client import ALWAYS, Client, booking

CLIENTS: Final = 24
HOSTS: Final = 5
CAPACITY: Final = 3
A_DAY: Final = 6
A_BOOKER: Final = 4
BOOKERS: Final = 3
MONEY: Final = {"amount": 1000, "currency": "EUR"}
TAKEN: Final = {"slot_taken", "limit_reached"}
# How often each command is tried, and how the contract may refuse it.
COMMANDS: Final[dict[str, tuple[float, set[str]]]] = {
    "create": (30, TAKEN | {"booker_limit_reached"}),
    "repeat": (4, TAKEN),
    "hold": (12, TAKEN),
    "convert": (10, TAKEN | {"booker_limit_reached", "hold_expired"}),
    "release": (2, {"not_found"}),
    "reschedule": (12, TAKEN | {"invalid_state"}),
    # validation_failed: the host whose part was to be given away had lost it meanwhile.
    "reassign": (10, TAKEN | {"invalid_state", "validation_failed"}),
    "cancel": (8, {"invalid_state"}),
    "cancel_following": (2, {"invalid_state"}),
    "approve": (5, {"invalid_state"}),
    "pay": (4, {"invalid_state"}),
    "decline": (2, {"invalid_state"}),
    "patch": (3, {"invalid_state"}),
    "record": (2, {"invalid_state"}),
}
# What only a booking that has begun can have done to it.
LATER: Final[dict[str, tuple[float, set[str]]]] = {
    "complete": (4, {"invalid_state"}),
    "no_show": (4, {"invalid_state"}),
    "undo_no_show": (3, {"invalid_state"}),
}
STEP: Final = timedelta(minutes=15)

Booking = dict[str, Any]


async def arena(api: Client) -> tuple[dict[str, str], list[str]]:
    """Five hosts, and what is booked with them: a group, one alone within a limit, two in one of two rooms, one to be paid."""
    schedule = await api.ok("POST", "/schedules", ALWAYS)
    hosts = [
        (await api.ok("POST", "/hosts", {"name": f"Host {n}", "schedule_id": schedule["id"], "timezone": "UTC"}))["id"]
        for n in range(HOSTS)
    ]
    room = await api.ok("POST", "/resources", {"name": "Room", "quantity": 2})
    kinds = {
        "group": {"assignment": "round_robin", "capacity": CAPACITY, "requires_confirmation": True},
        "single": {"assignment": "any", "limits": [{"count": A_DAY, "per": "day"}]},
        "team": {
            "assignment": "any",
            "required_hosts": 2,
            "resource_ids": [room["id"]],
            "buffer_before_minutes": 10,
        },
        "paid": {"assignment": "any", "payment": MONEY, "max_active_per_booker": A_BOOKER},
    }
    several = [{"host_id": one} for one in hosts]
    return {name: await api.event_type("", hosts=several, **settings) for name, settings in kinds.items()}, hosts


class Storm:
    """Every answer is either what was asked for or a refusal of the contract; `done` counts the former.

    `said` are the answers that tell of a booking or hold: what was acknowledged. Under a test clock, (from, to), some steps
    move it on, half of the way in the steps that are asked for, and what takes a booking that has begun is tried too. The
    other half is for that alone.
    """

    def __init__(
        self,
        api: Client,
        kinds: dict[str, str],
        hosts: list[str],
        slots: list[str],
        rng: random.Random,
        clock: tuple[datetime, datetime] | None = None,
    ) -> None:
        self.api, self.kinds, self.hosts, self.slots, self.rng = api, kinds, hosts, slots, rng
        self.now, self.clock = clock[0] if clock else None, clock
        self.commands = COMMANDS | (LATER if clock else {})
        self.booked: dict[str, Booking] = {}
        self.held: list[tuple[str, str, str, int]] = []
        self.said: list[tuple[str, int, str, datetime]] = []
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.steps = 0
        self.over = False
        self._moving = asyncio.Lock()

    async def run(self, steps: int, least: int) -> None:
        """So many steps, and more until it is `over` and each command was done so often."""

        async def client() -> None:
            while self.steps < steps or not self.over or (self.lacking(least) and self.steps < 20 * steps):
                self.steps += 1
                if self.clock is not None and self.rng.random() < 0.15:
                    await self.move_on(self.steps / steps, self.lacking(least))
                # What was done too seldom yet comes sooner, and in the end alone.
                rare = self.steps >= steps or self.rng.random() < 0.3
                await self.step(self.lacking(least) if rare else [])

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    def lacking(self, least: int) -> list[str]:
        return [name for name in self.commands if self.done[name] < least]

    async def reached(self, steps: int) -> bool:
        return self.steps >= steps

    async def in_flight(self) -> bool:
        return bool(self.api.outstanding)

    async def served(self) -> bool:
        """Whether every replica of the gateway answers."""
        try:
            return all([(await self.api.call("GET", "/profile")).is_success for _ in self.api.urls])
        except httpx.TransportError:
            return False

    async def step(self, lacking: list[str]) -> None:
        """One command; where some are lacking one of these, or what makes or makes room for something they can act on."""
        lacking = [name for name in lacking if name not in LATER or any(map(self._begun, self.booked.values()))]
        names = [*lacking, "create", "hold", "cancel"] if lacking else list(self.commands)
        often = self.commands["create"][0]
        (name,) = self.rng.choices(names, [often if name in lacking else self.commands[name][0] for name in names])
        command: Callable[[], Any] = getattr(self, name)
        await command()

    async def move_on(self, share: float, lacking: list[str]) -> None:
        """The clock goes half as far on its way as the steps have come on theirs.

        Once they are through it goes on to the next booking that begins, where only what takes one is lacking.
        """
        assert self.clock is not None
        begin, end = self.clock
        way = min(share, 1) / 2
        if share >= 1 and lacking and LATER.keys() >= set(lacking) and not any(map(self._begun, self.booked.values())):
            way = 1
        async with self._moving:
            assert self.now is not None
            if self.now < min(end, begin + (end - begin) * way):
                answer = await self.api.persist("/test-clock", {"advance_seconds": STEP.total_seconds()})
                assert answer.status_code == 200, answer.text
                self.now = datetime.fromisoformat(answer.json()["now"])

    async def ask(self, name: str, path: str, body: Any = None, *, method: str = "POST") -> Any:
        """The thing where it was done, None where it was refused."""
        answer = await self.api.persist(path, body, key=str(uuid.uuid4()), method=method)
        told = answer.json() if answer.content else {}
        if not answer.is_success:
            gone = {"slot_not_offered"} if self.now is not None else set()  # a start that the clock has passed
            assert told["code"] in self.commands[name][1] | gone, f"{name}: {answer.text}"
            self.refused[f"{name} {told['code']}"] += 1
            if told["code"] == "invalid_state" and (known := self.booked.get(path.split("/")[2])):
                known["status"] = told["state"]  # of the rest of a cancelled series nobody had told
            return None
        self.done[name] += 1
        if told:
            self.said.append((told["id"], told["version"], told["status"], datetime.fromisoformat(told["start_at"])))
        if told and told["id"].startswith("bkg_") and told["version"] >= self.booked.get(told["id"], told)["version"]:
            self.booked[told["id"]] = told
        return told

    def one(self, fits: Callable[[Booking], bool]) -> Booking | None:
        """Mostly one that fits as far as is known, which may be outdated; sometimes any."""
        some = [one for one in self.booked.values() if fits(one)]
        return self.rng.choice(some) if some and self.rng.random() < 0.9 else self._any()

    def _any(self) -> Booking | None:
        return self.rng.choice(list(self.booked.values())) if self.booked else None

    async def act(self, name: str, action: str, body: Any, fits: Callable[[Booking], bool]) -> None:
        if one := self.one(fits):
            await self.ask(name, f"/bookings/{one['id']}/{action}", body)

    def wanted(self) -> tuple[str, str, int]:
        kind = self.rng.choice(list(self.kinds))
        return self.kinds[kind], self.start(), self.rng.randint(1, 2) if kind == "group" else 1

    def start(self) -> str:
        """One that has not passed, as long as there is one."""
        ahead = [one for one in self.slots if self.now is None or datetime.fromisoformat(one) > self.now]
        return self.rng.choice(ahead or self.slots)

    def booker(self) -> str:
        return f"ada-{self.rng.randrange(BOOKERS)}@example.test"

    async def create(self) -> None:
        kind, start_at, seats = self.wanted()
        await self.ask("create", "/bookings", booking(kind, start_at, seats=seats, booker_email=self.booker()))

    async def repeat(self) -> None:
        repeated = {"rrule": "FREQ=DAILY;COUNT=3", "on_conflict": self.rng.choice(["fail", "skip"])}
        await self.ask("repeat", "/bookings", booking(self.kinds["single"], self.start(), recurrence=repeated))

    async def hold(self) -> None:
        kind, start_at, seats = self.wanted()
        ttl = self.rng.choice([1, 1800])
        body = {"event_type_id": kind, "start_at": start_at, "seats": seats, "ttl_seconds": ttl}
        if made := await self.ask("hold", "/holds", body):
            self.held.append((made["id"], kind, start_at, seats))

    async def convert(self) -> None:
        if self.held:
            hold_id, kind, start_at, seats = self.rng.choice(self.held[-20:])
            body = booking(kind, start_at, seats=seats, hold_id=hold_id, booker_email=self.booker())
            await self.ask("convert", "/bookings", body)

    async def release(self) -> None:
        if self.held:
            await self.ask("release", f"/holds/{self.held.pop()[0]}", method="DELETE")

    async def reschedule(self) -> None:
        await self.act("reschedule", "reschedule", {"start_at": self.start()}, is_open)

    async def reassign(self) -> None:
        """More often of a team than of one alone, for there somebody stays."""
        if one := self.one(lambda b: is_open(b) and len(b["host_ids"]) > (self.rng.random() < 0.7)):
            other = self.rng.choice([host for host in self.hosts if host not in one["host_ids"]])
            body = {"host_id": other, "from_host_id": self.rng.choice(one["host_ids"])}
            await self.ask("reassign", f"/bookings/{one['id']}/reassign", body)

    async def cancel(self) -> None:
        await self.act("cancel", "cancel", {}, is_open)

    async def cancel_following(self) -> None:
        await self.act("cancel_following", "cancel", {"scope": "following"}, lambda b: is_open(b) and b["series_id"])

    async def approve(self) -> None:
        await self.act("approve", "approve", {}, lambda b: b["status"] == "pending" and b["payment"] is None)

    async def pay(self) -> None:
        body = {"status": "paid", "reference": str(uuid.uuid4())}
        await self.act("pay", "payment", body, lambda b: b["status"] == "pending" and b["payment"] is not None)

    async def decline(self) -> None:
        await self.act("decline", "decline", {}, lambda b: b["status"] == "pending")

    async def patch(self) -> None:
        if one := self._any():
            body = {"metadata": {"patched": str(uuid.uuid4())}}
            await self.ask("patch", f"/bookings/{one['id']}", body, method="PATCH")

    async def record(self) -> None:
        await self.act("record", "recordings", {"url": f"https://example.com/{uuid.uuid4()}"}, is_open)

    async def complete(self) -> None:
        await self.act("complete", "complete", {}, self._begun)

    async def no_show(self) -> None:
        await self.act("no_show", "no-show", {}, self._begun)

    async def undo_no_show(self) -> None:
        """Of one that has not come; one of those is made sure of first."""
        if not any(one["status"] == "no_show" for one in self.booked.values()):
            await self.no_show()
        if one := self.one(lambda b: b["status"] == "no_show"):
            await self.ask("undo_no_show", f"/bookings/{one['id']}/no-show", method="DELETE")

    def _begun(self, one: Booking) -> bool:
        start, end = (datetime.fromisoformat(one[name]) for name in ("start_at", "end_at"))
        return one["status"] == "confirmed" and self.now is not None and start <= self.now < end


def is_open(one: Booking) -> bool:
    return one["status"] in {"pending", "confirmed"}
