"""WebDAV's XML: the requests that we make, and multistatus answers.

Answers are parsed without entities, DTDs or network, since a calendar server is chosen by a user.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from lxml import etree
from msgspec import Struct

from kalends_calendar_sync.providers.base import ProviderError

DAV: Final = "{DAV:}"
CALDAV: Final = "{urn:ietf:params:xml:ns:caldav}"
CALSERVER: Final = "{http://calendarserver.org/ns/}"
_NAMESPACES: Final = {"d": "DAV:", "c": "urn:ietf:params:xml:ns:caldav", "s": "http://calendarserver.org/ns/"}
_STATUS: Final = re.compile(r"HTTP/\S+\s+(\d{3})")

Element = etree._Element  # noqa: SLF001 (lxml has no public name for its type)


class Response(Struct, frozen=True):
    """One resource of a multistatus: `status` of the whole, `found` the properties that came with 200."""

    href: str
    status: int
    found: dict[str, Element]

    def text(self, name: str) -> str | None:
        element = self.found.get(name)
        return None if element is None or element.text is None else element.text.strip() or None

    def hrefs(self, name: str) -> list[str]:
        element = self.found.get(name)
        return [] if element is None else [h.text.strip() for h in element.iter(f"{DAV}href") if h.text]


class Multistatus(Struct, frozen=True):
    responses: list[Response]
    token: str | None


def parse(body: bytes) -> Multistatus:
    """Reads a 207's body.

    Raises:
        ProviderError: `bad_answer`.
    """
    root = _root(body)
    if root is None or root.tag != f"{DAV}multistatus":
        raise ProviderError("bad_answer", "the answer is no WebDAV multistatus")
    token = root.findtext(f"{DAV}sync-token")
    return Multistatus([_response(r) for r in root.findall(f"{DAV}response")], token.strip() if token else None)


def _root(body: bytes) -> Element | None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        return None
    return None if root.getroottree().docinfo.internalDTD is not None else root


def _response(element: Element) -> Response:
    found: dict[str, Element] = {}
    for stat in element.findall(f"{DAV}propstat"):
        if _status(stat) == 200:
            for prop in stat.findall(f"{DAV}prop"):
                found.update((str(child.tag), child) for child in prop)
    own = element.find(f"{DAV}status")
    # Some servers answer for a missing resource with a propstat of 404 and nothing else.
    stats = [_status(s) for s in element.findall(f"{DAV}propstat")]
    status = _status(element) if own is not None else 200 if found or not stats else max(stats)
    return Response((element.findtext(f"{DAV}href") or "").strip(), status, found)


def _status(element: Element) -> int:
    found = _STATUS.match((element.findtext(f"{DAV}status") or "").strip())
    return int(found[1]) if found else 200


def _element(name: str, *children: Element) -> Element:
    prefix, _, local = name.partition(":")
    made = etree.Element(f"{{{_NAMESPACES[prefix]}}}{local}", nsmap=_NAMESPACES)
    made.extend(children)
    return made


def _text(name: str, text: str) -> Element:
    made = _element(name)
    made.text = text
    return made


def _write(root: Element) -> bytes:
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")


def propfind(names: Iterable[str]) -> bytes:
    """`names` as `d:getetag`."""
    return _write(_element("d:propfind", _element("d:prop", *(_element(name) for name in names))))


def sync_collection(token: str) -> bytes:
    return _write(
        _element(
            "d:sync-collection",
            _text("d:sync-token", token),
            _text("d:sync-level", "1"),
            _element("d:prop", _element("d:getetag")),
        )
    )


def multiget(hrefs: Iterable[str]) -> bytes:
    prop = _element("d:prop", _element("d:getetag"), _element("c:calendar-data"))
    return _write(_element("c:calendar-multiget", prop, *(_text("d:href", href) for href in hrefs)))


def names_in(element: Element | None) -> Iterator[str]:
    """The tags below an element, as of a resourcetype or a supported-report-set."""
    return iter(()) if element is None else (str(child.tag) for child in element.iter() if child is not element)
