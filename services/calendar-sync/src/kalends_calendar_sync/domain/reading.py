"""What a reading of a calendar changes of what is known: decided here, written elsewhere."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from kalends_calendar_sync.domain.synced import Facts, Read

# More than a fifth gone at once, and not just a handful, is a calendar that shows itself wrongly until somebody says.
MASS_SHARE: Final = 0.2
MASS_LEAST: Final = 5


class Known(Struct, frozen=True):
    """What is known of one series; `version`, `created_at` and `end_at` are its event's, None where it has none."""

    ref: str
    uid: str
    etag: str
    hash: bytes | None
    event_id: str | None
    own: bool
    problem: str | None
    version: int | None
    created_at: datetime | None
    end_at: datetime | None


class Row(Struct, frozen=True, kw_only=True):
    """A series as it is to be kept."""

    ref: str
    uid: str
    etag: str
    hash: bytes | None
    event_id: str | None
    own: bool = False
    source: str | None = None
    expanded_until: datetime | None = None
    problem: str | None = None


class Upserted(Struct, frozen=True, kw_only=True):
    """An event to be told of; a new one has version 1. One that is only `expanded` further is the same to its readers."""

    id: str
    version: int
    created_at: datetime
    facts: Facts
    expanded: bool = False


class Batch(Struct):
    """What changes together with one series, or in one transaction."""

    rows: list[Row] = []
    touched: list[tuple[str, str, str]] = []  # ref, UID and new etag of what has not changed otherwise
    upserted: list[Upserted] = []
    deleted: list[tuple[str, int]] = []  # id of an event, and its version so far
    gone: list[tuple[str, str]] = []  # ref and UID

    def add(self, other: "Batch") -> None:
        self.rows += other.rows
        self.touched += other.touched
        self.upserted += other.upserted
        self.deleted += other.deleted
        self.gone += other.gone

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.touched) + len(self.deleted) + len(self.gone)


class Object(Struct, frozen=True):
    """A calendar object as it was read just now."""

    ref: str
    etag: str
    series: list[Read]


class Maker(Struct, frozen=True):
    """What new rows are made with."""

    now: datetime
    until: datetime
    new_id: Callable[[], str]
    expanding: bool = False


def of_object(found: Object, before: Sequence[Known], own: Callable[[Read], bool], make: Maker) -> Batch:
    """What an object that is new or has changed does; `before` are the series that it was known to hold."""
    out = Batch()
    known = {k.uid: k for k in before}
    unreadable = [read for read in found.series if not read.uid]
    if unreadable:
        # Nothing is known of what it holds now, so what it held stays.
        problem = unreadable[0].problem
        for k in before:
            out.rows.append(_kept(k, found.etag, problem))
        if not before:
            out.rows.append(Row(ref=found.ref, uid="", etag=found.etag, hash=None, event_id=None, problem=problem))
        return out
    for read in found.series:
        out.add(_of_series(found, read, known.pop(read.uid, None), is_own=own(read), make=make))
    for k in known.values():
        out.add(gone(k))
    return out


def _of_series(found: Object, read: Read, k: Known | None, *, is_own: bool, make: Maker) -> Batch:
    out = Batch()
    event = k.event_id if k is not None else None
    if read.problem is not None:
        kept = k or Known(found.ref, read.uid, found.etag, None, None, is_own, None, None, None, None)
        out.rows.append(_kept(kept, found.etag, read.problem))
        return out
    if k is not None and k.hash == read.hash and k.own == is_own and k.problem is None:
        out.touched.append((found.ref, read.uid, found.etag))
        return out
    facts = read.facts
    if is_own or facts is None or (read.over and event is None):
        if k is not None and event is not None:
            out.deleted.append((event, k.version or 0))
        event = None
    elif event is not None and k is not None and k.version is not None and k.created_at is not None:
        out.upserted.append(
            Upserted(id=event, version=k.version + 1, created_at=k.created_at, facts=facts, expanded=make.expanding)
        )
    else:
        event = make.new_id()
        out.upserted.append(Upserted(id=event, version=1, created_at=make.now, facts=facts))
    goes_on = event is not None and read.source is not None
    out.rows.append(
        Row(
            ref=found.ref,
            uid=read.uid,
            etag=found.etag,
            hash=read.hash,
            event_id=event,
            own=is_own,
            source=read.source if goes_on else None,
            expanded_until=make.until if goes_on else None,
        )
    )
    return out


def _kept(k: Known, etag: str, problem: str | None) -> Row:
    # The hash goes, so that the next version that can be understood counts as changed.
    return Row(ref=k.ref, uid=k.uid, etag=etag, hash=None, event_id=k.event_id, own=k.own, problem=problem)


def gone(k: Known) -> Batch:
    """What becomes of a series that is not there any more."""
    deleted = [(k.event_id, k.version or 0)] if k.event_id is not None else []
    return Batch(deleted=deleted, gone=[(k.ref, k.uid)])


def is_mass_deletion(known: Mapping[str, Sequence[Known]], refs: Iterable[str], now: datetime) -> bool:
    """Whether so many of the events to come are gone at once that it is doubted. Refs are of what is gone."""
    alive = {ref: sum(_alive(k, now) for k in some) for ref, some in known.items()}
    total, lost = sum(alive.values()), sum(alive.get(ref, 0) for ref in refs)
    return lost >= MASS_LEAST and lost > total * MASS_SHARE


def _alive(k: Known, now: datetime) -> bool:
    return k.event_id is not None and (k.end_at is None or k.end_at > now)
