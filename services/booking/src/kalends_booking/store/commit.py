"""The commit of every command: one SQL function, one round trip (migrations, `commit_command`)."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from uuid_utils import uuid7

from kalends_booking.domain import booking, hold
from kalends_booking.domain.decision import Choice, Decision, State, Timer
from kalends_booking.store import codec
from kalends_booking.store.people import PersonVersion
from kalends_shared import event_store, positions, telemetry
from kalends_shared.contracts.booking import BookingState
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import Actor
from kalends_shared.db import Connection, Queryable
from kalends_shared.event_store import Position

COMMIT: Final = """
SELECT outcome, choice, tx, position, rule, person_id, request_hash, status, error, headers, body
FROM commit_command($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
    $22, $23, $24)
"""

COMMIT_DUE: Final = "SELECT commit_due($1, $2, $3, $4, $5, $6, $7, $8)"

Render = Callable[[Choice], bytes]
_encode: Final = msgspec.json.Encoder().encode
# The actor of what nobody did.
TIME: Final = _encode(Actor(type="system", name="timer"))


class Keyed(Struct, frozen=True, kw_only=True):
    """The Idempotency-Key of a command, and what of its answer is stored beside the body."""

    request_hash: bytes
    status: int
    headers: bytes
    person_id: str | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """What the commit came to, as `commit_command` names it; `row` holds the stored answer where there is one."""

    kind: str
    choice: Choice | None = None
    reply: bytes = b""
    position: str | None = None
    rule: str = ""
    person_id: str | None = None
    row: Mapping[str, Any] | None = None


async def commit(
    conn: Queryable,
    call: Call,
    decision: Decision,
    *,
    render: Render | None = None,
    keyed: Keyed | None = None,
    person: PersonVersion | None = None,
) -> Outcome:
    """Commits a decision: all of it or nothing; `conn` may be a pool.

    `render` gives the answer's body for a choice; it is stored under the call's key where `keyed` is given.

    Raises:
        VersionConflict: a stream has moved on: load it and decide again.
    """
    replies = [render(choice) for choice in decision.choices] if render is not None else []
    writes = _Writes()
    for n, choice in enumerate(decision.choices, 1):
        writes.add(n if len(decision.choices) > 1 else 0, choice)
    keys, due, kinds, cancelled = _timers(decision.choices[0])
    cap = decision.cap
    row = await conn.fetchrow(
        COMMIT,
        call.tenant,
        call.now,
        _encode(call.actor),
        call.request_id or None,
        None,  # the cause: what is commanded from outside has none
        telemetry.traceparent() or call.traceparent,
        _entry(call, keyed),
        replies,
        [*decision.locks, cap.lock] if cap else decision.locks,
        decision.frees,
        decision.leaves,
        len(decision.choices),
        [(n, *claim) for n, choice in enumerate(decision.choices, 1) for claim in choice.claims],
        [(n, *limit) for n, choice in enumerate(decision.choices, 1) for limit in choice.limits],
        (cap.event_type_id, cap.person_id, cap.at_most, cap.besides) if cap else None,
        writes.changes,
        writes.bookings,
        writes.holds,
        person.columns() if person is not None else None,
        keys,
        due,
        kinds,
        cancelled,
        writes.actors,
    )
    assert row is not None
    return _outcome(row, decision, replies)


def _entry(call: Call, keyed: Keyed | None) -> tuple[Any, ...] | None:
    """What is stored under the call's key beside the body; nothing where it has none."""
    if keyed is None or call.idempotency_key is None:
        return None
    stored = keyed.request_hash, keyed.status, keyed.headers, keyed.person_id
    return call.method, call.path, call.idempotency_key, *stored


def _outcome(row: Mapping[str, Any], decision: Decision, replies: Sequence[bytes]) -> Outcome:
    """A row of `commit_command`.

    Raises:
        VersionConflict: a stream has moved on.
    """
    kind = row["outcome"]
    if kind == "conflict":
        raise event_store.VersionConflict
    if kind != "done":
        return Outcome(kind=kind, rule=row["rule"] or "", person_id=row["person_id"], row=row)
    taken = row["choice"] - 1
    return Outcome(
        kind=kind,
        choice=decision.choices[taken],
        reply=replies[taken] if replies else b"",
        position=positions.token("booking", Position(row["tx"], row["position"])),
    )


async def commit_due(conn: Connection, decided: Mapping[str, Decision]) -> set[str]:
    """Commits what time has done, by tenant, under the locks of it all; `conn` is in the transaction that holds them.

    No decision may offer or take places. Timers that end are left to the caller, whose firing removes them. Gives the
    tenants of which nothing was written, since one of their streams has moved on.
    """
    writes = _Writes()
    freed: list[tuple[int, str, bool]] = []
    timers: list[tuple[int, str, datetime, str]] = []
    tenants = list(decided)
    for n, decision in enumerate(decided.values(), 1):
        writes.add(n, decision.choices[0])
        freed += [(n, holder, False) for holder in decision.frees]
        freed += [(n, holder, True) for holder in decision.leaves]
        timers += [(n, *timer) for timer in zip(*_timers(decision.choices[0])[:3], strict=True)]
    moved = await conn.fetchval(
        COMMIT_DUE,
        tenants,
        TIME,
        telemetry.traceparent(),
        writes.changes,
        writes.bookings,
        writes.holds,
        freed,
        timers,
    )
    return {tenants[n - 1] for n in moved}


class _Writes:
    """The rows of decisions, each marked with its choice (0 where there is but one), or with whose decision it is.

    `actors` are those of the changes, None where that is whoever commits them.
    """

    def __init__(self) -> None:
        self.changes: list[tuple[Any, ...]] = []
        self.actors: list[bytes | None] = []
        self.bookings: list[tuple[Any, ...]] = []
        self.holds: list[tuple[Any, ...]] = []

    def add(self, n: int, choice: Choice) -> None:
        last: dict[str, tuple[State, bytes]] = {}
        for change in choice.changes:
            after = change.after
            state = _encode(after)
            last[after.id] = after, state
            event = codec.new_event(change, str(uuid7()), state)
            self.changes.append(
                (n, after.id, after.version, change.at, event.id, event.type, event.schema_version, event.data, state)
            )
            self.actors.append(TIME if change.by_time else None)
        for after, state in last.values():
            if isinstance(after, BookingState):
                self.bookings.append(booking_row(n, after, state))
            else:
                self.holds.append((n, after.id, after.version, state))


def booking_row(n: int, state: BookingState, encoded: bytes) -> tuple[Any, ...]:
    """A booking as its read model has it."""
    return (
        n,
        state.id,
        state.event_type_id,
        state.start_at,
        state.end_at,
        state.status,
        state.series_id,
        state.person_id,
        state.person_version,
        state.version,
        encoded,
    )


def timer_key(stream_id: str) -> str:
    return f"{stream_id}/due"


def _timers(choice: Choice) -> tuple[list[str], list[Any], list[str], list[str]]:
    """Keys, times and kinds of the timers to set, and keys of those to cancel."""
    first: dict[str, Timer | None] = {}
    last: dict[str, Timer | None] = {}
    for change in choice.changes:
        if change.after.id not in first:
            first[change.after.id] = next_timer(change.before) if change.before is not None else None
        last[change.after.id] = next_timer(change.after)
    moved = {stream: timer for stream, timer in last.items() if timer != first[stream]}
    to_set = [(timer_key(stream), timer) for stream, timer in moved.items() if timer is not None]
    cancelled = [timer_key(stream) for stream, timer in moved.items() if timer is None]
    return (
        [key for key, _ in to_set],
        [timer.due_at for _, timer in to_set],
        [timer.kind for _, timer in to_set],
        cancelled,
    )


def next_timer(state: State) -> Timer | None:
    return booking.next_timer(state) if isinstance(state, BookingState) else hold.next_timer(state)
