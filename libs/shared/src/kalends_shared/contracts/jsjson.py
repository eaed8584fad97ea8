"""JSON as JavaScript writes it: bytes that equal `JSON.stringify(JSON.parse(bytes))`.

Some webhook receivers verify a body that they have parsed and written again, so metadata, answers and themes are kept
in this form from the moment they are read. Numbers follow ECMA-262 Number::toString, integer-like keys come first and
ascending (OrdinaryOwnPropertyKeys), strings carry no escapes beyond the needed ones.
"""

import math
import re
from typing import Any, Final

import msgspec

_ARRAY_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_MAX_ARRAY_INDEX: Final = 2**32 - 2
_SAFE: Final = 2**53


def canonical(value: Any) -> bytes:
    """Writes parsed JSON in JavaScript's form.

    Raises:
        ValueError: a number is not finite, or a string holds a lone surrogate.
    """
    out: list[str] = []
    _write(value, out)
    try:
        return "".join(out).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string holds a lone surrogate") from error


def _write(value: Any, out: list[str]) -> None:
    if value is None:
        out.append("null")
    elif value is True:
        out.append("true")
    elif value is False:
        out.append("false")
    elif isinstance(value, str):
        out.append(msgspec.json.encode(value).decode())
    elif isinstance(value, int | float):
        out.append(number(value))
    elif isinstance(value, dict):
        out.append("{")
        for i, key in enumerate(sorted(value, key=_key_order) if any(map(_index, value)) else value):
            out.append("," if i else "")
            out.append(msgspec.json.encode(key).decode())
            out.append(":")
            _write(value[key], out)
        out.append("}")
    else:
        out.append("[")
        for i, item in enumerate(value):
            out.append("," if i else "")
            _write(item, out)
        out.append("]")


def _index(key: str) -> bool:
    return bool(_ARRAY_INDEX.fullmatch(key)) and int(key) <= _MAX_ARRAY_INDEX


def _key_order(key: str) -> tuple[int, int]:
    # The sort is stable, so that other keys stay in the order they were written in.
    return (0, int(key)) if _index(key) else (1, 0)


def number(value: float) -> str:
    """A number as ECMA-262 6.1.6.1.20 prints it: 5, 1e+21, 1e-7, 0.1."""
    if isinstance(value, int) and -_SAFE <= value <= _SAFE:
        return str(value)
    try:
        value = float(value)
    except OverflowError as error:
        raise ValueError("a number is out of range") from error
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + int(exponent or 0)
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"
