"""iCalendar text and its tree of components (RFC 5545 section 3.1 and 3.6), both ways.

Only what has a meaning for busy time is read further (see `values` and `series`), so a property that is odd but unused
never makes an event unreadable.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

LINE_OCTETS: Final = 75
MAX_DEPTH: Final = 10

_FOLD: Final = re.compile(r"\r?\n[ \t]")
_PARAM: Final = re.compile(r';\s*([A-Za-z0-9-]+)\s*=((?:"[^"]*"|[^";:,])*(?:,(?:"[^"]*"|[^";:,])*)*)')
_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_ESCAPED: Final = re.compile(r"\\([\\;,Nn:\"])")
_CARET: Final = re.compile(r"\^([n^'])")
_CARETS: Final = {"n": "\n", "^": "^", "'": '"'}
_TO_ESCAPE: Final = re.compile(r"[\\;,]|\r\n|\n|\r")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class NotACalendarError(ValueError):
    """The text is not iCalendar; says why."""


class Property(Struct, frozen=True):
    """One content line: `name` and the keys of `params` are upper case, `value` is as written, still escaped."""

    name: str
    value: str
    params: dict[str, str] = {}

    def text(self) -> str:
        """The value of a TEXT property."""
        return _ESCAPED.sub(lambda found: "\n" if found[1] in "nN" else found[1], self.value)


class Component(Struct):
    """A BEGIN-END block; properties and children in their order."""

    name: str
    properties: list[Property] = []
    children: list["Component"] = []

    def first(self, name: str) -> Property | None:
        return next((p for p in self.properties if p.name == name), None)

    def every(self, name: str) -> Iterator[Property]:
        return (p for p in self.properties if p.name == name)

    def text(self, name: str) -> str | None:
        found = self.first(name)
        return None if found is None else found.text()

    def within(self, name: str) -> Iterator["Component"]:
        return (c for c in self.children if c.name == name)


def parse(text: str) -> Component:
    """Reads one VCALENDAR; of several in one text, the children of all.

    Raises:
        NotACalendarError: where there is none, or a block is not closed (so that half a download is never taken for all).
    """
    stack: list[Component] = [Component("ROOT")]
    for line in _FOLD.sub("", text.removeprefix("\ufeff")).split("\n"):
        found = _line(line.removesuffix("\r"))
        if found is None:
            continue
        if found.name == "BEGIN":
            if len(stack) > MAX_DEPTH:
                raise NotACalendarError("blocks are nested too deep")
            block = Component(found.value.strip().upper())
            stack[-1].children.append(block)
            stack.append(block)
        elif found.name == "END":
            if len(stack) == 1 or stack[-1].name != found.value.strip().upper():
                raise NotACalendarError(f"END:{found.value[:40]} closes no block")
            stack.pop()
        else:
            stack[-1].properties.append(found)
    if len(stack) > 1:
        raise NotACalendarError(f"{stack[-1].name[:40]} is not closed")
    calendars = list(stack[0].within("VCALENDAR"))
    if not calendars:
        raise NotACalendarError("there is no VCALENDAR")
    first, *more = calendars
    for other in more:
        first.children.extend(other.children)
    return first


def _line(line: str) -> Property | None:
    named = _NAME.match(line)
    if named is None:
        return None
    at, params = named.end(), {}
    while at < len(line) and line[at] == ";":
        param = _PARAM.match(line, at)
        if param is None:
            return None
        params[param[1].upper()] = _param(param[2])
        at = param.end()
    if line[at : at + 1] != ":":
        return None
    return Property(named[0].upper(), line[at + 1 :], params)


def _param(value: str) -> str:
    if value.startswith('"') and value.endswith('"') and value.count('"') == 2:
        value = value[1:-1]
    return _CARET.sub(lambda found: _CARETS[found[1]], value) if "^" in value else value


def escape(text: str) -> str:
    """Plain text as a TEXT value; characters that no iCalendar may hold are dropped."""
    return _CONTROL.sub("", _TO_ESCAPE.sub(lambda f: "\\" + f[0] if f[0] in "\\;," else "\\n", text))


def render(component: Component) -> str:
    """The component's text, lines folded at 75 octets."""
    return "".join([fold(line) + "\r\n" for line in _lines(component)])


def _lines(component: Component) -> Iterator[str]:
    yield f"BEGIN:{component.name}"
    for p in component.properties:
        params = "".join(f";{key}={_quoted(value)}" for key, value in p.params.items())
        yield f"{p.name}{params}:{p.value}"
    for child in component.children:
        yield from _lines(child)
    yield f"END:{component.name}"


def _quoted(value: str) -> str:
    value = value.replace("^", "^^").replace("\n", "^n").replace('"', "^'")
    return f'"{value}"' if re.search("[;:,]", value) else value


def fold(line: str) -> str:
    """Breaks a line so that none has more than 75 octets, between characters."""
    if len(line) <= LINE_OCTETS // 4 or len(line.encode()) <= LINE_OCTETS:
        return line
    out: list[str] = []
    part, size = "", 0
    for character in line:
        width = len(character.encode())
        if size + width > LINE_OCTETS:
            out.append(part)
            part, size = " ", 1
        part += character
        size += width
    return "\r\n".join([*out, part])
