"""Windows and cursors of lists."""

from datetime import UTC, datetime

import msgspec
import pytest

from kalends_shared import lists
from kalends_shared.contracts.decode import query
from kalends_shared.contracts.endpoints import PageQuery
from kalends_shared.contracts.errors import KalendsError


class Key(msgspec.Struct):
    start_at: datetime
    id: str


class Other(msgspec.Struct):
    name: str


def ask(text: str) -> lists.Window[Key]:
    return lists.window(query(text, PageQuery), Key)


def pointers(text: str) -> list[str]:
    with pytest.raises(KalendsError) as caught:
        ask(text)
    assert caught.value.code == "validation_failed"
    return [field.pointer for field in caught.value.fields]


ROWS = [Key(datetime(2026, 1, day, tzinfo=UTC), f"id{day}") for day in range(1, 8)]


def page(window: lists.Window[Key], rows: list[Key], total: int | None = None) -> dict[str, object]:
    answer: dict[str, object] = msgspec.json.decode(
        lists.answer(window, rows, key=lambda r: r, encode=lambda r: msgspec.json.encode(r.id), total=total)
    )
    return answer


def test_pages_by_cursor_give_each_row_once() -> None:
    seen: list[object] = []
    text = "limit=3"
    for _ in range(3):
        window = ask(text)
        rest = [
            r for r in ROWS if window.after is None or (r.start_at, r.id) > (window.after.start_at, window.after.id)
        ]
        got = page(window, rest[: window.take])
        seen += got["data"]  # type: ignore[operator]
        text = f"limit=3&cursor={got['next_cursor']}"
    assert seen == [r.id for r in ROWS]
    assert (got["has_more"], got["next_cursor"], sorted(got)) == (False, None, ["data", "has_more", "next_cursor"])


def test_pages_by_number() -> None:
    window = ask("page=3&per_page=3")
    assert (window.numbered, window.offset) == (True, 6)
    got = page(window, ROWS[6:], total=7)
    assert got == {"data": ["id7"], "has_more": False, "next_cursor": None, "page": 3, "per_page": 3, "total": 7}
    assert page(ask("page=1"), ROWS, total=70)["has_more"] is True


def test_twenty_five_by_default() -> None:
    assert (ask("").size, ask("page=1").size, ask("per_page=4").offset) == (25, 25, 0)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("cursor=zzzz", ["?cursor"]), ("cursor=", ["?cursor"]), ("cursor=%F0%9F%92%A9", ["?cursor"]), ("limit=0", ["?limit"]), ("limit=101", ["?limit"]),
        ("page=0", ["?page"]), ("per_page=101", ["?per_page"]), ("limit=5&page=1", ["?limit"]), ("limit=5&cursor=x&per_page=5", ["?limit", "?cursor"]),
    ],
)  # fmt: skip
def test_what_a_list_refuses(text: str, at: list[str]) -> None:
    assert pointers(text) == at


def test_a_cursor_is_its_own_lists_and_whole() -> None:
    cursor = lists.make_cursor(ROWS[0])
    assert ask(f"cursor={cursor}").after == ROWS[0]
    assert pointers(f"cursor={lists.make_cursor(Other('x'))}") == ["?cursor"]
    for i in range(len(cursor) - 1):
        changed = cursor[:i] + ("A" if cursor[i] != "A" else "B") + cursor[i + 1 :]
        assert pointers(f"cursor={changed}") == ["?cursor"]
