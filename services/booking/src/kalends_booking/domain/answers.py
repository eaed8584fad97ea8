"""Answers to an event type's questions."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from kalends_shared.contracts import checks
from kalends_shared.contracts.availability import Question
from kalends_shared.contracts.errors import FieldError, invalid_fields
from kalends_shared.contracts.types import EMPTY, Object, parsed


def check(answers: Object, questions: list[Question], before: Object | None = None) -> None:
    """Holds the answers to the questions; of answers that were given `before` only what differs is judged again.

    Raises:
        KalendsError: `validation_failed` with everything that is wrong, at `#/answers/<key>`.
    """
    given, known = parsed(answers), parsed(before or EMPTY)
    asked = {question.key: question for question in questions}
    needed = [key for key, one in asked.items() if one.required and (before is None or not _nothing(known.get(key)))]
    missing = [key for key in needed if _nothing(given.get(key))]
    errors = (
        *_wrong(given, known, asked),
        *(FieldError(f"#/answers/{checks.escape(key)}", "required", "is required") for key in missing),
    )
    if errors:
        raise invalid_fields(errors)


def check_sizes(answers: Object) -> None:
    """Holds the answers to the bounds that all of them have, whatever was asked."""
    errors = tuple(
        FieldError(f"#/answers{below}", "invalid", detail)
        for key, value in parsed(answers).items()
        for below, detail in checks.value_size(key, value)
    )
    if errors:
        raise invalid_fields(errors)


def _wrong(given: dict[str, Any], known: dict[str, Any], asked: dict[str, Question]) -> Iterator[FieldError]:
    for key, value in given.items():
        at = f"#/answers/{checks.escape(key)}"
        question = asked.get(key)
        if key in known and msgspec.json.encode(known[key]) == msgspec.json.encode(value):
            continue
        if question is None:
            yield FieldError(at, "unknown_field", "is not a question here")
        elif value is not None:
            for _, detail in checks.value_size(key, value):
                yield FieldError(at, "invalid", detail)
            if wrong := _KINDS[question.type](value, question):
                yield FieldError(at, "invalid", wrong)


def _nothing(value: Any) -> bool:
    """Whether it answers nothing, as a blank text does."""
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _text(value: Any, _: Question) -> str | None:
    return None if isinstance(value, str) else "must be text"


def _select(value: Any, question: Question) -> str | None:
    return None if value in question.options else f"must be one of {', '.join(question.options)}"


def _multiselect(value: Any, question: Question) -> str | None:
    if not isinstance(value, list):
        return "must be a list"
    return next((wrong for item in value if (wrong := _select(item, question))), None)


def _checkbox(value: Any, _: Question) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _number(value: Any, _: Question) -> str | None:
    return None if isinstance(value, int | float) and not isinstance(value, bool) else "must be a number"


def _checked(examine: Callable[[str], Iterator[checks.Problem]]) -> Callable[[Any, Question], str | None]:
    def kind(value: Any, _: Question) -> str | None:
        return next((detail for _, detail in examine(value)), None) if isinstance(value, str) else "must be text"

    return kind


_KINDS: Final[dict[str, Callable[[Any, Question], str | None]]] = {
    "text": _text,
    "textarea": _text,
    "select": _select,
    "multiselect": _multiselect,
    "checkbox": _checkbox,
    "number": _number,
    "email": _checked(checks.email),
    "phone": _checked(checks.phone),
    "url": _checked(checks.url),
}
