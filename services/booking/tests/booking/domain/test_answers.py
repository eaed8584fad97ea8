"""Answers are held to the questions, every problem at once."""

from typing import Any

import msgspec
import pytest

from kalends_booking.domain import answers
from kalends_shared.contracts.availability import Question
from kalends_shared.contracts.errors import KalendsError

QUESTIONS = [
    Question(key="size", label="Size", type="select", required=True, options=["S", "L"]),
    Question(key="n", label="N", type="number"),
    Question(key="tags", label="Tags", type="multiselect", options=["a", "b"]),
    Question(key="ok", label="OK", type="checkbox"),
    Question(key="mail", label="Mail", type="email"),
    Question(key="site", label="Site", type="url"),
    Question(key="phone", label="Phone", type="phone"),
    Question(key="a/b", label="Odd", type="text"),
]


def raw(given: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(given))


def wrong(given: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, str]:
    try:
        answers.check(raw(given), QUESTIONS, None if before is None else raw(before))
    except KalendsError as error:
        return {field.pointer: field.code for field in error.fields}
    return {}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"size": "L", "n": 2, "tags": ["a"], "ok": False, "mail": "a@b.test", "site": "https://x.test"}, {}),
        ({"size": "L", "n": None}, {}),
        ({}, {"#/answers/size": "required"}),
        ({"size": ""}, {"#/answers/size": "invalid"} | {"#/answers/size": "required"}),
        ({"size": "XL", "x": 1}, {"#/answers/size": "invalid", "#/answers/x": "unknown_field"}),
        ({"size": "L", "n": "two"}, {"#/answers/n": "invalid"}),
        ({"size": "L", "n": True}, {"#/answers/n": "invalid"}),
        ({"size": "L", "tags": ["c"]}, {"#/answers/tags": "invalid"}),
        ({"size": "L", "mail": "nobody"}, {"#/answers/mail": "invalid"}),
        ({"size": "L", "site": "x"}, {"#/answers/site": "invalid"}),
        ({"size": "L", "phone": "+1 (555) 010-0199 ext. 12"}, {}),
        ({"size": "L", "phone": "call me"}, {"#/answers/phone": "invalid"}),
        ({"size": "L", "phone": "+"}, {"#/answers/phone": "invalid"}),
        ({"size": "L", "a/b": "x" * 501}, {"#/answers/a~1b": "invalid"}),
    ],
)
def test_answers(given: dict[str, Any], found: dict[str, str]) -> None:
    assert wrong(given) == found


@pytest.mark.parametrize(
    ("kind", "blank"), [("text", "  "), ("textarea", "\n"), ("text", ""), ("multiselect", []), ("number", None)]
)
def test_a_blank_answer_is_none_where_one_is_required(kind: Any, blank: Any) -> None:
    with pytest.raises(KalendsError) as caught:
        answers.check(raw({"a": blank}), [Question(key="a", label="A", type=kind, required=True)])
    assert [(field.pointer, field.code) for field in caught.value.fields] == [("#/answers/a", "required")]


@pytest.mark.parametrize(
    ("before", "given", "errors"),
    [
        ({"size": "S"}, {"size": "XL"}, {"#/answers/size": "invalid"}),
        ({"size": "S"}, {}, {"#/answers/size": "required"}),
        # What nobody asks any more, or asks otherwise, stays as it was answered; it may go, but not change.
        ({"size": "XS", "gone": 1}, {"size": "XS", "gone": 1, "n": 2}, {}),
        ({"size": "XS", "gone": 1}, {"size": "S"}, {}),
        ({"size": "S", "gone": 1}, {"size": "S", "gone": 2}, {"#/answers/gone": "unknown_field"}),
        ({"size": "S", "ok": True}, {"size": "S", "ok": 1}, {"#/answers/ok": "invalid"}),
        # A question that is required since does not keep others from being answered.
        ({}, {"n": 1}, {}),
        ({"n": 1}, {"n": "x"}, {"#/answers/n": "invalid"}),
        (None, {"n": 1}, {"#/answers/size": "required"}),
    ],
)
def test_of_changed_answers_only_what_differs_is_judged(
    before: dict[str, Any] | None, given: dict[str, Any], errors: dict[str, str]
) -> None:
    assert wrong(given, before) == errors
