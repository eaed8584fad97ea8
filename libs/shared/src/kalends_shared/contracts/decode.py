"""Bytes into public Structs, with every error at once and a pointer to each.

msgspec's own decoder stops at the first error, so a body is parsed once and walked along its Struct's type instead: text
is trimmed, unknown members and wrong types are collected, and the Struct is made only of what is right. A Struct may
add what spans fields by a method `problems(self) -> Iterable[(pointer below it, code, detail)]`.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from functools import cache
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect as mi

from kalends_shared.contracts import jsjson
from kalends_shared.contracts.checks import CHECKS, escape
from kalends_shared.contracts.errors import FieldError, KalendsError, invalid, invalid_fields

T = TypeVar("T", bound=msgspec.Struct)
Errors = list[FieldError]
Reader = Callable[[Any, str, Errors], Any]

_BAD: Final = object()
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)")


def decode(raw: bytes, kind: type[T]) -> T:
    """Reads a body; a missing one is an empty one.

    Raises:
        KalendsError: `malformed` where it is not JSON, `validation_failed` with all that is wrong.
    """
    return _build(parse(raw), kind, "#")


def patch(raw: bytes, current: T) -> T:
    """Merges a JSON merge patch (RFC 7396) into the writable form of a thing and reads the whole again."""
    change = parse(raw)
    if not isinstance(change, dict):
        raise invalid("#", "type", "must be an object")
    merged = msgspec.json.decode(msgspec.json.encode(current))
    for key, value in change.items():
        # At the top a null stays, as a field's null is a value of its own; below it removes the member.
        merged[key] = _merge(merged.get(key), value) if isinstance(value, dict) else value
    return _build(merged, type(current), "#")


def query(text: str, kind: type[T]) -> T:
    """Reads a query string; a space in an instant stands for its plus sign.

    Lists are written with commas; a parameter that comes again continues it, as many clients write lists.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except (ValueError, UnicodeDecodeError) as error:
        raise KalendsError("malformed", "The query string cannot be parsed.") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return _build(found, kind, "?")


def parse(raw: bytes) -> Any:
    """Parsed JSON of any shape.

    Raises:
        KalendsError: `malformed`.
    """
    if not raw.strip():
        return {}
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise KalendsError("malformed", "The body is not JSON in UTF-8.") from error


def _build(value: Any, kind: type[T], root: str) -> T:
    errors: Errors = []
    made = _reader(kind, root == "?")(value, root, errors)
    if not errors and _judges(kind):
        errors.extend(_problems(made, root))
    if errors:
        raise invalid_fields(errors)
    return cast("T", made)


@cache
def _judges(kind: type) -> bool:
    """Tells whether any Struct in this one has a say about itself: most have not, and need not be walked again."""
    return _has_say(mi.type_info(kind))


def _has_say(info: mi.Type) -> bool:
    match info:
        case mi.Metadata():
            return _has_say(info.type)
        case mi.ListType() | mi.VarTupleType():
            return _has_say(info.item_type)
        case mi.UnionType():
            return any(map(_has_say, info.types))
        case mi.StructType():
            return hasattr(info.cls, "problems") or any(_has_say(field.type) for field in info.fields)
        case _:
            return False


def _problems(made: Any, at: str) -> Iterable[FieldError]:
    if isinstance(made, msgspec.Struct):
        own = getattr(made, "problems", None)
        if own is not None:
            for below, code, detail in own():
                yield FieldError(_join(at, below), code, detail)
        for name in made.__struct_fields__:
            child = getattr(made, name)
            if isinstance(child, msgspec.Struct | list | tuple):
                yield from _problems(child, _join(at, name))
    elif isinstance(made, list | tuple):
        for i, child in enumerate(made):
            if isinstance(child, msgspec.Struct):
                yield from _problems(child, f"{at}/{i}")


def _join(at: str, below: str) -> str:
    if not below:
        return at
    return f"?{below}" if at == "?" else f"{at}/{below}"


def _merge(into: Any, change: dict[str, Any]) -> dict[str, Any]:
    out = dict(into) if isinstance(into, dict) else {}
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merge(out.get(key), value) if isinstance(value, dict) else value
    return out


@cache
def _reader(kind: type, textual: bool) -> Reader:
    return _read(mi.type_info(kind), textual)


def _read(info: mi.Type, textual: bool) -> Reader:
    match info:
        case mi.Metadata():
            extra = info.extra or {}
            if extra.get("verbatim") and isinstance(info.type, mi.StrType):
                return _text(info.type, trimmed=False)
            return _checked(_read(info.type, textual), extra.get("check"))
        case mi.StructType():
            return _struct(info, textual)
        case mi.UnionType():
            return _union(info, textual)
        case mi.ListType() | mi.VarTupleType():
            return _list(info, textual)
        case mi.LiteralType():
            return _literal(info)
        case mi.StrType():
            return _text(info)
        case mi.IntType():
            return _integer(info, textual)
        case mi.BoolType():
            return _boolean(textual)
        case mi.DateTimeType():
            return _instant(textual)
        case mi.DateType():
            return _day
        case mi.RawType():
            return _json
        case _:
            raise TypeError(f"{info} has no reader")


def _say(errors: Errors, at: str, code: str, detail: str) -> Any:
    errors.append(FieldError(at, code, detail))
    return _BAD


def _struct(info: mi.StructType, textual: bool) -> Reader:
    cls = info.cls
    fields = {f.encode_name: (f.name, f.required, _nullable(f.type), _read(f.type, textual)) for f in info.fields}

    def read(value: Any, at: str, errors: Errors) -> Any:
        if not isinstance(value, dict):
            return _say(errors, at, "type", "must be an object")
        before = len(errors)
        got: dict[str, Any] = {}
        for key, item in value.items():
            found = fields.get(key)
            if found is None:
                _say(errors, _join(at, escape(key)), "unknown_field", "is not a field here")
            elif item is None and not found[2]:
                if found[1]:
                    _say(errors, _join(at, key), "required", "must not be null")
            else:
                got[found[0]] = found[3](item, _join(at, key), errors)
        for key, (_, required, _, _) in fields.items():
            if required and key not in value:
                _say(errors, _join(at, key), "required", "is required")
        return _BAD if len(errors) > before else cls(**got)

    return read


def _nullable(info: mi.Type) -> bool:
    return isinstance(info, mi.UnionType) and info.includes_none


def _union(info: mi.UnionType, textual: bool) -> Reader:
    readers = [_read(t, textual) for t in info.types if not isinstance(t, mi.NoneType)]
    if len(readers) != 1:
        raise TypeError("a public field is of one type, or null")

    def read(value: Any, at: str, errors: Errors) -> Any:
        return None if value is None else readers[0](value, at, errors)

    return read


def _list(info: mi.ListType | mi.VarTupleType, textual: bool) -> Reader:
    item = _read(info.item_type, textual)
    low, high = info.min_length or 0, info.max_length

    def read(value: Any, at: str, errors: Errors) -> Any:
        parts = value.split(",") if textual and isinstance(value, str) else value
        if not isinstance(parts, list):
            return _say(errors, at, "type", "must be a list")
        if len(parts) < low:
            return _say(errors, at, "too_few", f"must have at least {low}")
        if high is not None and len(parts) > high:
            return _say(errors, at, "too_many", f"must have at most {high}")
        made = [item(part, at if textual else f"{at}/{i}", errors) for i, part in enumerate(parts)]
        return made if isinstance(info, mi.ListType) else tuple(made)

    return read


def _checked(inner: Reader, check: str | None) -> Reader:
    if check is None:
        return inner
    examine = CHECKS[check]

    def read(value: Any, at: str, errors: Errors) -> Any:
        made = inner(value, at, errors)
        if made is _BAD:
            return made
        problems = list(examine(value if isinstance(made, msgspec.Raw) else made))
        for below, detail in problems:
            _say(errors, at + below, "invalid", detail)
        return _BAD if problems else made

    return read


def _literal(info: mi.LiteralType) -> Reader:
    values = info.values

    def read(value: Any, at: str, errors: Errors) -> Any:
        if isinstance(value, str | int) and value in values:
            return value
        return _say(errors, at, "invalid_choice", f"must be one of {', '.join(map(str, values))}")

    return read


def _text(info: mi.StrType, *, trimmed: bool = True) -> Reader:
    low, high = info.min_length or 0, info.max_length
    pattern = re.compile(info.pattern) if info.pattern else None

    def read(value: Any, at: str, errors: Errors) -> Any:
        if not isinstance(value, str):
            return _say(errors, at, "type", "must be text")
        value = value.strip() if trimmed else value
        if "\x00" in value:
            return _say(errors, at, "invalid", "must not hold a NUL character")
        if len(value) < low:
            return _say(errors, at, "too_short", "must not be empty" if low == 1 else f"must have {low} characters")
        if high is not None and len(value) > high:
            return _say(errors, at, "too_long", f"must have at most {high} characters")
        if pattern is not None and not pattern.fullmatch(value):
            return _say(errors, at, "invalid", f"must match {info.pattern}")
        return value

    return read


def _integer(info: mi.IntType, textual: bool) -> Reader:
    low, high = info.ge, info.le

    def read(value: Any, at: str, errors: Errors) -> Any:
        if textual and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return _say(errors, at, "type", "must be a whole number")
        if low is not None and value < low:
            return _say(errors, at, "too_small", f"must be at least {low}")
        if high is not None and value > high:
            return _say(errors, at, "too_large", f"must be at most {high}")
        return value

    return read


def _boolean(textual: bool) -> Reader:
    def read(value: Any, at: str, errors: Errors) -> Any:
        if textual and value in {"true", "false"}:
            return value == "true"
        return value if isinstance(value, bool) else _say(errors, at, "type", "must be true or false")

    return read


def _instant(textual: bool) -> Reader:
    def read(value: Any, at: str, errors: Errors) -> Any:
        if isinstance(value, str):
            value = value.strip()
            if textual:
                value = value[:10] + value[10:].replace(" ", "+") if "T" in value.upper() else value
            if _INSTANT.fullmatch(value):
                try:
                    return datetime.fromisoformat(value.upper()).astimezone(UTC)
                except (ValueError, OverflowError):
                    return _say(errors, at, "invalid", "is not a date and time that exists")
        return _say(errors, at, "invalid", "must be a date and time with an offset, as RFC 3339 has it")

    return read


def _day(value: Any, at: str, errors: Errors) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value.strip()):
        try:
            return date.fromisoformat(value.strip())
        except ValueError:
            return _say(errors, at, "invalid", "is not a date that exists")
    return _say(errors, at, "invalid", "must be a date as YYYY-MM-DD")


def _json(value: Any, at: str, errors: Errors) -> Any:
    if not isinstance(value, dict):
        return _say(errors, at, "type", "must be an object")
    try:
        made = jsjson.canonical(value)
    except (ValueError, RecursionError):
        return _say(errors, at, "invalid", "holds a number or text that JSON cannot carry")
    if b"\\u0000" in made:
        return _say(errors, at, "invalid", "must not hold a NUL character")
    return msgspec.Raw(made)
