"""The aggregate beside a model that is as simple as api.md's paragraph on states, under any order of commands and times.

The model knows one status and a few moments, and is moved by time at once; the aggregate hears of time only when its
timer fires, which here it does whenever it pleases. So whatever a late timer has not told yet must bind already.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from kalends_booking.domain import booking, placing
from kalends_booking.domain.decision import Change, Choice, Decision
from kalends_booking.domain.events import BookingCreated, BookingReassigned, BookingRescheduled
from kalends_booking.store import codec
from kalends_shared.contracts.booking import BookingState, Payment, Policies, ReassignIn, RescheduleIn
from kalends_shared.contracts.errors import KalendsError

from .given import DAY, MADE, booked

LENGTH = timedelta(minutes=30)
OPEN = ("pending", "confirmed")


class Machine(RuleBasedStateMachine):
    """One booking; `state` and `told` are the aggregate and its events, all else is the model."""

    @initialize(
        confirm=st.booleans(),
        pay=st.booleans(),
        confirm_within=st.none() | st.integers(1, 90),
        pay_within=st.none() | st.integers(1, 90),
        cutoff=st.none() | st.integers(0, 60),
    )
    def create(
        self, confirm: bool, pay: bool, confirm_within: int | None, pay_within: int | None, cutoff: int | None
    ) -> None:
        self.now = MADE
        self.start, self.cutoff = MADE + timedelta(hours=1), timedelta(minutes=cutoff) if cutoff is not None else None
        self.status = "pending" if confirm or pay else "confirmed"
        self.approved, self.paid = not confirm, not pay
        self.approve_by = MADE + timedelta(minutes=confirm_within) if confirm and confirm_within else None
        self.pay_by = MADE + timedelta(minutes=pay_within) if pay and pay_within else None
        self.completed_at: datetime | None = None
        self.no_show_at: datetime | None = None
        self.host = "hst_ann"
        self.changed_at = MADE
        policies = Policies(
            cancel_cutoff_minutes=cutoff,
            reschedule_cutoff_minutes=cutoff,
            requires_confirmation=confirm,
            confirmation_expires_at=self.approve_by,
            approved=not confirm,
            requires_payment=pay,
        )
        payment = Payment(status="pending", amount=1, currency="EUR", expires_at=self.pay_by) if pay else None
        made = booked(self.status, start_at=self.start, end_at=self.start + LENGTH, payment=payment, created_at=MADE)
        self.state = replace(made, policies=policies)
        self.told: list[Change] = [Change(None, BookingCreated(booking=self.state), self.state, MADE)]

    # --- time

    @rule(minutes=st.sampled_from([0, 1, 10, 30, 60, 24 * 60, 24 * 60 + 1]))
    def pass_time(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        self._settle()

    def _settle(self) -> None:
        """What time does to the model by itself."""
        if self.status == "pending":
            waits = [self.start, *([self.approve_by] if self.approve_by and not self.approved else [])]
            waits += [self.pay_by] if self.pay_by and not self.paid else []
            if min(waits) <= self.now:
                self.status = "declined"
        elif self.status == "confirmed" and self.start + LENGTH <= self.now:
            self.status, self.completed_at = "completed", max(self.start + LENGTH, self.changed_at)
            self.changed_at = self.completed_at

    @rule()
    def timer_fires(self) -> None:
        timer = booking.next_timer(self.state)
        decision = booking.tick(self.state, self.now)
        assert (decision is not None) == (timer is not None and timer.due_at <= self.now)
        if decision is not None:
            self._take(decision)
        assert booking.tick(self.state, self.now) is None

    # --- commands

    @rule()
    def approve(self) -> None:
        if self._legal(self.status == "pending" and not self.approved, lambda: booking.approve(self.state, self.now)):
            self.approved = True
            self._confirm()

    @rule(status=st.sampled_from(["pending", "paid", "failed", "refunded"]))
    def pay(self, status: Any) -> None:
        known = self.state.policies.requires_payment
        assert self._legal(True, lambda: booking.tell_payment(self.state, self.now, Payment(status=status)))
        self.paid = status == "paid" or not known
        if status == "paid":
            self._confirm()
        self._settle()

    @rule()
    def decline(self) -> None:
        if self._legal(self.status == "pending", lambda: booking.decline(self.state, self.now)):
            self.status = "declined"

    @rule(force=st.booleans())
    def cancel(self, force: bool) -> None:
        if self._legal(
            self.status in OPEN, lambda: booking.cancel(self.state, self.now, force=force), within=self._open(force)
        ):
            self.status = "cancelled"

    @rule(hours=st.integers(0, 3), force=st.booleans())
    def reschedule(self, hours: int, force: bool) -> None:
        start = self.now + timedelta(hours=hours)
        asked = RescheduleIn(start_at=start, force=force)

        def decide() -> Decision:
            state, late = placing.may_move(self.state, asked, self.now)
            event = BookingRescheduled(start_at=start, end_at=start + LENGTH, **_place(state, state.host_ids))
            return _decided(state, late, event, self.now)

        if self._legal(self.status in OPEN, decide, within=self._open(force)):
            self.start = start
            self._settle()

    @rule(host=st.sampled_from(["hst_ann", "hst_bob"]))
    def reassign(self, host: str) -> None:
        def decide() -> Decision:
            state, late, leaving = placing.may_reassign(self.state, ReassignIn(host_id=host), self.now)
            assert leaving == self.host
            event = BookingReassigned(start_at=state.start_at, end_at=state.end_at, **_place(state, [host]))
            return _decided(state, late, event, self.now)

        if self._legal(self.status in OPEN and host != self.host, decide):
            self.host = host

    @rule()
    def complete(self) -> None:
        if self._legal(
            self.status == "confirmed" and self.now >= self.start, lambda: booking.complete(self.state, self.now)
        ):
            self.status, self.completed_at = "completed", self.now

    @rule()
    def no_show(self) -> None:
        begun = self.status == "confirmed" and self.now >= self.start
        lately = self.status == "completed" and self.completed_at is not None and self.now <= self.completed_at + DAY
        if self._legal(begun or lately, lambda: booking.no_show(self.state, self.now)):
            self.status, self.no_show_at = "no_show", self.now

    @rule()
    def undo_no_show(self) -> None:
        lately = self.status == "no_show" and self.no_show_at is not None and self.now <= self.no_show_at + DAY
        if self._legal(lately, lambda: booking.undo_no_show(self.state, self.now)):
            self.status = "completed" if self.completed_at is not None else "confirmed"
            self._settle()

    # --- what must hold after each

    @invariant()
    def the_aggregate_is_what_the_model_says(self) -> None:
        caught_up, _ = booking.caught_up(self.state, self.now)
        assert (caught_up.status, caught_up.start_at, caught_up.host_ids) == (self.status, self.start, [self.host])
        assert booking.caught_up(caught_up, self.now) == (caught_up, ())

    @invariant()
    def its_events_tell_it_again(self) -> None:
        """Replayed, and read back as they were written."""
        state: BookingState | None = None
        for n, change in enumerate(self.told, 1):
            written = codec.new_event(change, "e", msgspec.json.encode(change.after))
            event = codec.decode(written.type, written.schema_version, written.data, written.state)
            state = booking.evolve(state, event, change.at)
            assert (state, state.version) == (change.after, n)
        assert state == self.state
        assert [change.at for change in self.told] == sorted(change.at for change in self.told)

    @invariant()
    def only_what_waits_has_a_timer(self) -> None:
        timer = booking.next_timer(self.state)
        assert (timer is not None) == (self.state.status in OPEN)

    # --- helpers

    def _legal(self, legal: bool, decide: Callable[[], Decision], *, within: bool = True) -> bool:
        """Runs a command, which must be refused unless it is legal, naming the state; past a cut-off it is refused too."""
        decision, code, extra = _tried(decide)
        expected = "" if legal and within else "cutoff_passed" if legal else "invalid_state"
        assert code == expected
        assert extra == ({"state": self.status} if code == "invalid_state" else {})
        if decision is not None:
            self._take(decision)
            self.changed_at = self.now
        return decision is not None

    def _open(self, force: bool) -> bool:
        return force or self.cutoff is None or self.now <= self.start - self.cutoff

    def _confirm(self) -> None:
        if self.status == "pending" and self.approved and self.paid:
            self.status = "confirmed"

    def _take(self, decision: Decision) -> None:
        (choice,) = decision.choices
        after = choice.changes[-1].after
        assert isinstance(after, BookingState)
        over = after.status in {"declined", "cancelled"} and self.state.status in OPEN
        assert decision.leaves == ((after.id,) if over else ())
        self.told += choice.changes
        self.state = after


def _tried(decide: Callable[[], Decision]) -> tuple[Decision | None, str, dict[str, Any]]:
    """The decision, or the code and the members of its refusal."""
    try:
        return decide(), "", {}
    except KalendsError as refusal:
        return None, refusal.code, refusal.extra


def _place(state: BookingState, hosts: list[str]) -> dict[str, Any]:
    return {
        "host_ids": hosts,
        "resource_ids": [],
        "units": [],
        "event_type": state.event_type,
        "hosts": state.hosts,
        "policies": state.policies,
    }


def _decided(state: BookingState, late: tuple[Change, ...], event: Any, now: datetime) -> Decision:
    change = Change(state, event, booking.evolve(state, event, now), now)
    return Decision(choices=(Choice(changes=(*late, change)),))


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=40)
