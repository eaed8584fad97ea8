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
    Question(key="a/b", label="Odd", type="text"),
]


def wrong(given: dict[str, Any]) -> dict[str, str]:
    try:
        answers.check(msgspec.Raw(msgspec.json.encode(given)), QUESTIONS)
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
        ({"size": "L", "a/b": "x" * 501}, {"#/answers/a~1b": "invalid"}),
    ],
)
def test_answers(given: dict[str, Any], found: dict[str, str]) -> None:
    assert wrong(given) == found
