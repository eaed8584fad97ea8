"""Who goes next: fair between accounts, fair between an account's endpoints, and no endpoint holds more than its share.

A lane is one endpoint. How many of its deliveries may be in flight at once moves with how it answers, as congestion
windows do: up by one with each quick success, down to half with each attempt that got no answer in time, or one that says
it is too much (429, 502, 503, 504). So a hanging endpoint soon holds one place. An account may hold at most half of all
places, and its lanes that are slow at most half of that, so that its quick ones always have room; a lane counts as slow
as soon as an attempt has taken a second. After five attempts in a row without an answer that lets it go on a lane rests,
for a second first and for half a minute at most, and then one attempt tries whether it is well again.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from kalends_webhooks.delivery.job import Lane

FIRST_LIMIT: Final = 16.0
QUICK_LIMIT: Final = 128.0
SLOW_LIMIT: Final = 16.0
SLOW_SECONDS: Final = 1.0
QUANTUM: Final = 16  # deliveries that a lane gets before it is another's turn
MOST_LANES: Final = 20_000  # remembered though nothing of them is due
STRIKES: Final = 5
RESTS: Final = (1.0, 30.0)
SLOW_SHARE: Final = 0.5  # of what an account may hold
ALL_SLOW_SHARE: Final = 0.75
TENANT_SHARE: Final = 0.5


class _State:
    """What is known of a lane: places held, places allowed, whether it answers slowly, whether it has anything due."""

    __slots__ = ("held", "limit", "rests_until", "slow", "strikes", "struck_at", "waiting", "woken")

    def __init__(self) -> None:
        self.held = 0
        self.limit = FIRST_LIMIT
        self.slow = False
        self.strikes = 0  # attempts in a row without an answer
        self.struck_at = 0.0
        self.rests_until = 0.0
        self.waiting = False
        self.woken = False  # since the last claim began, which may not have seen what it was woken for

    def room(self, now: float) -> int:
        if now < self.rests_until:
            return 0
        return (1 if self.strikes >= STRIKES else int(self.limit)) - self.held


class Lanes:
    """The places of one worker, and who may have them."""

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._places, self._clock = places, clock
        self._lanes: dict[Lane, _State] = {}
        self._held = 0
        self._held_slow = 0
        self._held_by: Counter[str] = Counter()
        self._slow_by: Counter[str] = Counter()
        # Accounts in turn, each with its lanes in turn; a lane without room waits outside until it has some.
        self._turns: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    @property
    def held(self) -> int:
        return self._held

    def resting(self) -> int:
        """How many lanes rest, or are being tried again."""
        return sum(state.strikes >= STRIKES for state in self._lanes.values())

    def slow(self, lane: Lane) -> bool:
        """Tells whether it is for the endpoint that a lane's deliveries wait."""
        state = self._lanes.get(lane)
        return state is not None and state.slow

    def wake(self, lanes: Iterable[Lane]) -> None:
        """Says that these lanes have something due."""
        for lane in lanes:
            state = self._lanes.setdefault(lane, _State())
            state.waiting = state.woken = True
            self._enter(lane, state)

    def waiting(self) -> bool:
        """Tells whether some lane has something due and room for it."""
        return bool(self._turns) and self._held < self._places

    def choose(self, most: int) -> list[tuple[Lane, int]]:
        """Whose turn it is: lanes, with how many of their deliveries to claim. Places are held from now on."""
        chosen: dict[Lane, int] = {}
        free = min(self._places - self._held, most)
        passed: list[Lane] = []
        while free > 0 and self._turns:
            tenant, turns = next(iter(self._turns.items()))
            webhook = next(iter(turns))
            lane = Lane(tenant, webhook)
            state = self._lanes[lane]
            take = min(state.room(self._clock()), QUANTUM, free, self._share(tenant, state))
            self._leave(lane)
            if take <= 0:
                passed.append(lane)
                continue
            chosen[lane] = chosen.get(lane, 0) + take
            state.woken = False
            self._count(lane, state, take)
            free -= take
            self._enter(lane, state)
        for lane in passed:
            self._enter(lane, self._lanes[lane])
        return list(chosen.items())

    def reserve(self, lane: Lane) -> bool:
        """Holds a place for a delivery that is about to be due, unless others of its lane are waiting before it."""
        state = self._lanes.setdefault(lane, _State())
        if (
            state.waiting
            or state.room(self._clock()) <= 0
            or self._held >= self._places
            or self._share(lane.tenant_id, state) <= 0
        ):
            return False
        self._count(lane, state, 1)
        return True

    def claimed(self, lane: Lane, asked: int, got: int) -> None:
        """Says how many of the places held for a claim were filled; fewer than asked means that nothing more is due."""
        state = self._lanes[lane]
        if got < asked:
            if not state.woken:
                state.waiting = False
                self._leave_for_good(lane)
            self.free(lane, asked - got)

    def free(self, lane: Lane, places: int = 1) -> None:
        """Gives places back."""
        state = self._lanes[lane]
        self._count(lane, state, -places)
        if state.waiting:
            self._enter(lane, state)
        elif state.held == 0 and len(self._lanes) > MOST_LANES:
            del self._lanes[lane]  # it starts again as a new one

    def suspect(self, lane: Lane) -> None:
        """Says that an attempt has been under way for long, before it has ended."""
        if (state := self._lanes.get(lane)) is not None:
            state.limit = min(state.limit, SLOW_LIMIT)
            self._mark(lane, state, slow=True)

    def ended(self, lane: Lane, *, answered: bool, succeeded: bool, seconds: float) -> None:
        """Learns from an attempt, and gives its place back."""
        state = self._lanes[lane]
        slow = seconds >= SLOW_SECONDS or not answered
        now = self._clock()
        if answered:
            state.strikes = 0
        elif now - seconds >= state.struck_at:  # those that were under way together are one
            state.strikes, state.struck_at = state.strikes + 1, now
            if state.strikes >= STRIKES:
                state.rests_until = now + min(RESTS[0] * 2 ** min(state.strikes - STRIKES, 10), RESTS[1])
        if not answered:
            state.limit = max(state.limit / 2, 1.0)
        elif slow:
            state.limit = max(min(state.limit, SLOW_LIMIT), 1.0)
        elif succeeded:
            state.limit = min(state.limit + 1, QUICK_LIMIT)
        self._mark(lane, state, slow=slow)
        self.free(lane)

    def _mark(self, lane: Lane, state: _State, *, slow: bool) -> None:
        if slow != state.slow:
            state.slow = slow
            self._held_slow += state.held if slow else -state.held
            self._slow_by[lane.tenant_id] += state.held if slow else -state.held

    def _share(self, tenant: str, state: _State) -> int:
        """Places that an account may still take, for a slow lane those that its slow lanes, and all slow ones, may."""
        whole = max(int(self._places * TENANT_SHARE), 1)
        share = whole - self._held_by[tenant]
        if state.slow:
            share = min(share, max(int(whole * SLOW_SHARE), 1) - self._slow_by[tenant])
            share = min(share, max(int(self._places * ALL_SLOW_SHARE), 1) - self._held_slow)
        return share

    def _count(self, lane: Lane, state: _State, places: int) -> None:
        state.held += places
        self._held += places
        self._held_by[lane.tenant_id] += places
        if state.slow:
            self._held_slow += places
            self._slow_by[lane.tenant_id] += places
        if not self._held_by[lane.tenant_id]:
            del self._held_by[lane.tenant_id]
            del self._slow_by[lane.tenant_id]

    def _enter(self, lane: Lane, state: _State) -> None:
        """Puts a lane at the end of its account's turns, and the account, where it is new, at the end of all."""
        if state.waiting and state.room(self._clock()) > 0:
            self._turns.setdefault(lane.tenant_id, OrderedDict())[lane.webhook_id] = None

    def _leave_for_good(self, lane: Lane) -> None:
        """Takes a lane out that has nothing due; its account keeps its turn."""
        turns = self._turns.get(lane.tenant_id)
        if turns is not None:
            turns.pop(lane.webhook_id, None)
            if not turns:
                del self._turns[lane.tenant_id]

    def _leave(self, lane: Lane) -> None:
        """Takes a lane out after its turn, and its account, which comes back at the end if it has others."""
        turns = self._turns.pop(lane.tenant_id, None)
        if turns is None:
            return
        turns.pop(lane.webhook_id, None)
        if turns:
            self._turns[lane.tenant_id] = turns
