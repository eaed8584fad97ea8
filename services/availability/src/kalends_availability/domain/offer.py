"""The answer of GET .../availability: which dates to look at, and the slots found, written as JSON."""

from collections.abc import Sequence
from typing import Final

from kalends_availability.domain.bits import Frame, ones
from kalends_availability.domain.memo import Memo
from kalends_availability.domain.plan import Plan
from kalends_availability.domain.rules import Ask, View, bookable_dates
from kalends_availability.domain.zones import DAY, FIRST_DAY, LAST_DAY, Piece, Zone, date_of, minute_after

_CLOCK: Final = tuple(f"T{minute // 60:02}:{minute % 60:02}:00" for minute in range(DAY))
_TEXTS: Final[Memo[str]] = Memo(8_000_000, len)


def frame_of(plan: Plan, ask: Ask, where: Zone, first: int, last: int) -> Frame | None:
    """The minutes in which starts of the dates `[first, last]` of a zone can lie; None where there can be none.

    It grows to whole dates of the event type's zone where 8b needs them.
    """
    first, last = max(first, FIRST_DAY), min(last, LAST_DAY)
    spans = where.spans(first, last) if first <= last else []
    if not spans:
        return None
    # Whole days of UTC, so that the frame, and all that is remembered by it, stays the same as time goes on.
    earliest = (minute_after(ask.now) + plan.event_type.minimum_notice_minutes) // DAY * DAY
    low, high = max(spans[0][0], earliest), spans[-1][1]
    opens, closes = bookable_dates(plan, ask.now)
    low, high = max(low, (opens - 1) * DAY), min(high, (closes + 2) * DAY)
    if low >= high:
        return None
    if plan.event_type.only_first_slot_of_day:
        dates = plan.zone.spans(plan.zone.local_day(low), plan.zone.local_day(high - 1))
        low, high = min(low, dates[0][0]), max(high, dates[-1][1])
    return Frame.over(low, high)


def body(
    view: View | None,
    event_type_id: str,
    where: Zone,
    first: int,
    last: int,
    limit: int | None,
    stale_since: float | None,
) -> bytes:
    """The answer: every date from `first` to `last` with its slots; none where there is no view."""
    days, truncated = _days(view, where, first, last, limit)
    since = "null" if stale_since is None else f'"{text_of(int(stale_since // 60), 0)}"'
    return (
        f'{{"event_type_id":"{event_type_id}","timezone":"{where.name}","start":"{date_of(first)}","end":"{date_of(last)}",'
        f'"truncated":{"true" if truncated else "false"},"stale_since":{since},"days":[{",".join(days)}]}}'
    ).encode()


def _days(view: View | None, where: Zone, first: int, last: int, limit: int | None) -> tuple[list[str], bool]:
    starts = view.offered if view else 0
    if view is None or not starts:
        return [f'{{"date":"{date_of(day)}","slots":[]}}' for day in range(first, last + 1)], False
    out: list[str] = []
    left = view.frame.size if limit is None else limit
    for day in range(first, last + 1):
        slots: list[str] = []
        truncated = False
        for piece in where.pieces(day) if FIRST_DAY <= day <= LAST_DAY else ():
            found = _cut(starts, view.frame, piece)
            if found.bit_count() > left:
                found, truncated = _first(found, left), True
            if found:
                slots.append(_slots(view, where, day, piece, found))
                left -= found.bit_count()
        out.append(f'{{"date":"{date_of(day)}","slots":[{",".join(slots)}]}}')
        if truncated:
            return _until_last(out), True
    return out, False


def _until_last(days: list[str]) -> list[str]:
    """Without the empty dates after the last slot that is given."""
    while days and days[-1].endswith('"slots":[]}'):
        days.pop()
    return days


def _cut(starts: int, frame: Frame, piece: Piece) -> int:
    """The starts in a piece of a date; bit 0 is the piece's first minute."""
    low = piece.start - frame.base
    bits = starts >> low if low >= 0 else starts << -low
    return bits & ((1 << (piece.end - piece.start)) - 1)


def _first(bits: int, count: int) -> int:
    places = ones(bits)[:count]
    return bits & ((1 << (places[-1] + 1)) - 1) if places else 0


def _slots(view: View, where: Zone, day: int, piece: Piece, found: int) -> str:
    """The slots of a piece of a date as JSON, separated by commas."""
    minutes = view.ask.minutes
    if view.shared:
        starts = [piece.start + at for at in ones(found)]
        return ",".join([_slot(where, start, piece.offset, minutes, view.seats_left(start)) for start in starts])
    following = where.pieces(day + 1)
    whole = piece.end - piece.start == DAY and following and following[0].start == piece.end
    ends_after = found.bit_length() - 1 + minutes >= DAY
    if not whole or (ends_after and any(later.offset != piece.offset for later in following)):
        return ",".join([_slot(where, piece.start + at, piece.offset, minutes, 1) for at in ones(found)])
    # Days look alike: the text of one, with marks for its date and the next, serves all days of the same starts.
    text = _TEXTS.get((found, piece.offset, minutes), lambda: _pattern(ones(found), offset_text(piece.offset), minutes))
    return text.replace("\0", str(date_of(day))).replace("\1", str(date_of(day + 1)))


def _pattern(starts: Sequence[int], offset: str, minutes: int) -> str:
    out: list[str] = []
    for start in starts:
        end = start + minutes
        closing = f"\0{_CLOCK[end]}" if end < DAY else f"\1{_CLOCK[end - DAY]}"
        out.append(f'{{"start_at":"\0{_CLOCK[start]}{offset}","end_at":"{closing}{offset}","seats_left":1}}')
    return ",".join(out)


def _slot(where: Zone, start: int, offset: int, minutes: int, seats: int) -> str:
    end = start + minutes
    return (
        f'{{"start_at":"{text_of(start, offset)}","end_at":"{text_of(end, where.offset(end))}","seats_left":{seats}}}'
    )


def text_of(at: int, offset: int) -> str:
    """An instant as RFC 3339 has it, in wall time of an offset."""
    day, minute = divmod(at + offset, DAY)
    return f"{date_of(day)}{_CLOCK[minute]}{offset_text(offset)}"


def offset_text(offset: int) -> str:
    if not offset:
        return "Z"
    hours, minutes = divmod(abs(offset), 60)
    return f"{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"
