"""What may happen to a booking, and what time does to it (api.md, States)."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from kalends_booking.domain import booking
from kalends_booking.domain.booking import BookingState, Decision
from kalends_booking.domain.events import BookingRescheduled, BookingUpdated, Recording, RecordingReady
from kalends_shared.contracts.booking import Payment

from .given import DAY, HOUR, MADE, NOON, ONE, after, booked, completed, events, refused, unpaid

Command = Callable[[BookingState], Decision | None]
BEFORE = NOON - HOUR
COMMANDS: dict[str, Command] = {
    "approve": lambda state: booking.approve(state, BEFORE),
    "decline": lambda state: booking.decline(state, BEFORE),
    "cancel": lambda state: booking.cancel(state, BEFORE),
    "complete": lambda state: booking.complete(state, BEFORE),
    "no_show": lambda state: booking.no_show(state, BEFORE),
    "undo_no_show": lambda state: booking.undo_no_show(state, BEFORE),
}
LEGAL = {
    ("pending", "approve"): "confirmed",
    ("pending", "decline"): "declined",
    ("pending", "cancel"): "cancelled",
    ("confirmed", "cancel"): "cancelled",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("status", ["pending", "confirmed", "declined", "cancelled", "completed", "no_show"])
def test_before_the_start_only_these_transitions_are_legal(status: str, command: str) -> None:
    state = booked(status)
    then = LEGAL.get((status, command))
    if then is None:
        with refused("invalid_state", state=status):
            COMMANDS[command](state)
    else:
        assert after(COMMANDS[command](state)).status == then


def test_a_booking_that_is_over_leaves_its_place_but_not_the_lists_of_its_host() -> None:
    decision = booking.cancel(booked(), BEFORE, "ill")
    assert (decision.leaves, decision.frees, decision.locks) == (("bkg_1",), (), ("hst_ann",))
    assert (after(decision).cancelled_reason, after(decision).reason) == ("ill", "ill")


def test_a_completed_booking_keeps_its_place() -> None:
    assert booking.tick(booked(), ONE).leaves == ()  # type: ignore[union-attr]


def test_every_event_raises_the_version_and_tells_its_time() -> None:
    state = after(booking.cancel(booked(), BEFORE))
    assert (state.version, state.updated_at, state.created_at) == (2, BEFORE, MADE)


class TestCutoffs:
    def test_bind_inside_them(self) -> None:
        with refused("cutoff_passed"):
            booking.cancel(booked(policies={"cancel_cutoff_minutes": 60}), NOON - HOUR + timedelta(seconds=1))

    def test_the_last_moment_is_outside(self) -> None:
        assert after(booking.cancel(booked(policies={"cancel_cutoff_minutes": 60}), NOON - HOUR)).status == "cancelled"

    def test_force_goes_past_them(self) -> None:
        tight = booked(policies={"cancel_cutoff_minutes": 60})
        assert after(booking.cancel(tight, NOON - timedelta(minutes=1), force=True)).status == "cancelled"

    def test_a_state_that_forbids_it_is_told_first(self) -> None:
        with refused("invalid_state", state="declined"):
            booking.cancel(booked("declined", policies={"cancel_cutoff_minutes": 10_000}), BEFORE)


class TestTime:
    def test_a_confirmed_booking_starts(self) -> None:
        decision = booking.tick(booked(), NOON)
        assert events(decision) == ["meeting.started"]
        assert booking.next_timer(after(decision)) == ("end", ONE)

    def test_and_ends_completed_which_both_events_show(self) -> None:
        decision = booking.tick(booked(started_at=NOON), ONE)
        assert events(decision) == ["meeting.ended", "booking.completed"]
        assert decision is not None
        assert [change.after.status for change in decision.choices[0].changes] == ["completed", "completed"]
        assert [change.before.status for change in decision.choices[0].changes if change.before] == ["confirmed"] * 2
        assert booking.next_timer(after(decision)) is None

    def test_after_downtime_all_that_was_due_is_told_at_its_own_time(self) -> None:
        decision = booking.tick(booked(), NOON + 3 * DAY)
        assert events(decision) == ["meeting.started", "meeting.ended", "booking.completed"]
        assert decision is not None
        assert [change.at for change in decision.choices[0].changes] == [NOON, ONE, ONE]

    def test_told_once(self) -> None:
        assert booking.tick(completed(), NOON + DAY) is None

    def test_a_request_is_declined_at_its_start(self) -> None:
        decision = booking.tick(booked("pending"), NOON)
        assert (after(decision).status, after(decision).reason, events(decision)) == (
            "declined",
            "expired",
            ["booking.declined"],
        )

    def test_or_once_it_was_to_be_answered(self) -> None:
        soon = booked("pending", policies={"confirmation_expires_at": MADE + HOUR})
        assert booking.next_timer(soon) == ("expire", MADE + HOUR)
        assert booking.tick(soon, MADE + HOUR - timedelta(microseconds=1)) is None

    def test_or_to_be_paid_for(self) -> None:
        terms = Payment(status="pending", amount=1, currency="EUR", expires_at=MADE + HOUR)
        assert booking.next_timer(unpaid(payment=terms)) == ("expire", MADE + HOUR)

    def test_what_a_late_timer_has_not_told_yet_binds_commands_already(self) -> None:
        with refused("invalid_state", state="completed"):
            booking.cancel(booked(), ONE)
        with refused("invalid_state", state="declined"):
            booking.approve(booked("pending"), NOON)

    def test_a_command_tells_it_first(self) -> None:
        assert events(booking.complete(booked(), NOON)) == ["meeting.started", "booking.completed"]
        assert events(booking.no_show(booked(), ONE)) == [
            "meeting.started",
            "meeting.ended",
            "booking.completed",
            "booking.no_show",
        ]

    def test_a_cancelled_one_has_no_timer(self) -> None:
        assert booking.next_timer(after(booking.cancel(booked(), BEFORE))) is None


class TestNoShow:
    def test_once_started(self) -> None:
        assert after(booking.no_show(booked(), NOON)).status == "no_show"

    def test_until_a_day_after_completion(self) -> None:
        assert after(booking.no_show(completed(), ONE + DAY)).status == "no_show"
        with refused("invalid_state", state="completed"):
            booking.no_show(completed(), ONE + DAY + timedelta(seconds=1))

    def test_undone_it_is_what_it_was(self) -> None:
        during = after(booking.no_show(booked(), NOON))
        assert after(booking.undo_no_show(during, NOON)).status == "confirmed"
        later = after(booking.no_show(completed(), ONE + HOUR))
        assert after(booking.undo_no_show(later, ONE + HOUR)).status == "completed"
        assert after(booking.undo_no_show(later, ONE + HOUR, "Was late")).reason == "Was late"

    def test_undone_past_its_end_it_has_ended(self) -> None:
        undone = booking.undo_no_show(after(booking.no_show(booked(), NOON)), ONE + HOUR)
        assert events(undone) == ["booking.no_show_undone", "meeting.ended", "booking.completed"]
        assert (after(undone).status, after(undone).completed_at) == ("completed", ONE + HOUR)
        assert booking.next_timer(after(undone)) is None

    def test_within_a_day(self) -> None:
        marked = after(booking.no_show(booked(), NOON))
        with refused("invalid_state", state="no_show"):
            booking.undo_no_show(marked, NOON + DAY + timedelta(seconds=1))


class TestPayment:
    paid = Payment(status="paid", amount=1500, currency="EUR", reference="ch_1")

    def test_paid_confirms(self) -> None:
        decision = booking.tell_payment(unpaid(), BEFORE, self.paid)
        assert (after(decision).status, events(decision)) == ("confirmed", ["payment.updated"])

    def test_only_once_approved_where_both_are_required(self) -> None:
        both = replace(unpaid(), policies=replace(booked("pending").policies, requires_payment=True))
        told = after(booking.tell_payment(both, BEFORE, self.paid))
        assert told.status == "pending"
        assert after(booking.approve(told, BEFORE)).status == "confirmed"
        approved = after(booking.approve(both, BEFORE))
        assert approved.status == "pending"
        assert after(booking.tell_payment(approved, BEFORE, self.paid)).status == "confirmed"

    def test_what_nobody_asked_for_is_not_awaited(self) -> None:
        told = after(booking.tell_payment(booked("pending"), BEFORE, Payment(status="failed")))
        assert (told.status, told.payment) == ("pending", Payment(status="failed"))
        assert after(booking.approve(told, BEFORE)).status == "confirmed"

    def test_failed_leaves_it_waiting(self) -> None:
        assert after(booking.tell_payment(unpaid(), BEFORE, Payment(status="failed"))).status == "pending"

    def test_what_is_not_told_stays(self) -> None:
        told = after(booking.tell_payment(unpaid(), BEFORE, Payment(status="paid", reference="ch_1"))).payment
        assert told == Payment(status="paid", amount=1500, currency="EUR", reference="ch_1")

    def test_refunded_after_it_was_cancelled(self) -> None:
        gone = after(booking.cancel(unpaid(), BEFORE))
        assert after(booking.tell_payment(gone, BEFORE, Payment(status="refunded"))).status == "cancelled"


def test_a_patch_that_changes_nothing_is_no_event() -> None:
    same = BookingUpdated(person_version="v_1")
    assert booking.update(booked(), BEFORE, same) is None
    assert after(booking.update(booked(), BEFORE, replace(same, meeting_url="https://x.test"))).meeting_url


def test_a_recording_changes_nothing_of_the_booking() -> None:
    told = RecordingReady(recording=Recording(url="https://x.test/r"))
    state = after(booking.tell_recording(booked(), BEFORE, told))
    assert replace(state, version=1, updated_at=MADE) == booked()


def test_a_meeting_that_moves_will_start_again() -> None:
    begun = after(booking.tick(booked(), NOON))
    kept = {
        name: getattr(begun, name) for name in ("event_type", "hosts", "policies", "host_ids", "resource_ids", "units")
    }
    moved = booking.evolve(begun, BookingRescheduled(start_at=NOON + DAY, end_at=ONE + DAY, **kept), NOON)
    assert booking.next_timer(moved) == ("start", NOON + DAY)
