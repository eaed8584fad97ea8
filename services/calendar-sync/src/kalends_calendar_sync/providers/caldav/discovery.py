"""From what a user types to the calendar: its own URL, a principal's, a home's, or just the server's."""

from typing import Final
from urllib.parse import urljoin, urlsplit

from kalends_calendar_sync.providers.base import Located, ProviderError
from kalends_calendar_sync.providers.caldav import xml
from kalends_calendar_sync.providers.caldav.http import Dav, redirect, refused
from kalends_calendar_sync.providers.caldav.xml import CALDAV, DAV, Response

_HOPS: Final = 5
_PROPS: Final = (
    "d:resourcetype", "d:displayname", "d:current-user-principal", "d:principal-URL", "c:calendar-home-set",
    "c:calendar-user-address-set", "c:calendar-timezone", "c:supported-calendar-component-set",
    "d:current-user-privilege-set",
)  # fmt: skip
# Of several calendars, the one that these names point to; else the first one.
_LIKELY: Final = ("calendar", "default", "personal", "home", "work")


async def locate(dav: Dav, url: str) -> Located:
    """Finds the calendar and what is known of its owner.

    Raises:
        ProviderError: `not_found` where the URL leads to no calendar.
    """
    begun, first = await _look_from(dav, url)
    principal = _href(begun, first, f"{DAV}current-user-principal")
    who = await _maybe(dav, principal) if principal else None
    owners = _owners(who) | _owners(first)
    if _is_calendar(first):
        return _located(begun, first, owners)
    home = (who and _href(principal or begun, who, f"{CALDAV}calendar-home-set")) or _href(
        begun, first, f"{CALDAV}calendar-home-set"
    )
    found = await _calendars(dav, home or begun)
    if not found:
        raise ProviderError("not_found", "the URL leads to no calendar")
    best = min(found, key=lambda pair: (_likelihood(*pair), found.index(pair)))
    return _located(*best, owners)


async def _look_from(dav: Dav, url: str) -> tuple[str, Response]:
    """The properties of a URL; where it has none, those of the place that the server's well-known URL names."""
    problem: ProviderError | None = None
    parts = urlsplit(url)
    for start in (url, f"{parts.scheme}://{parts.netloc}/.well-known/caldav", f"{parts.scheme}://{parts.netloc}/"):
        try:
            at, found = await _properties(dav, start)
        except ProviderError as error:
            if error.code not in {"not_found", "bad_answer"}:
                raise
            problem = problem or error
            continue
        if _is_calendar(found) or any(
            name in found.found for name in (f"{DAV}current-user-principal", f"{CALDAV}calendar-home-set")
        ):
            return at, found
    raise problem or ProviderError("not_found", "the URL leads to no calendar server")


async def _properties(dav: Dav, url: str) -> tuple[str, Response]:
    """PROPFIND of one resource, redirects followed."""
    for _ in range(_HOPS):
        answer = await dav.request(
            "PROPFIND", url, xml.propfind(_PROPS), {"Depth": "0", "Content-Type": "application/xml; charset=utf-8"}
        )
        onward = redirect(answer)
        if onward is None:
            if answer.status == 405:
                raise ProviderError("bad_answer", "the URL is no WebDAV resource")
            if answer.status != 207:
                raise refused(answer)
            found = xml.parse(answer.body).responses
            if not found:
                raise ProviderError("bad_answer", "the answer names no resource")
            return url, found[0]
        url = onward
    raise ProviderError("bad_answer", "the server redirects without end")


async def _maybe(dav: Dav, url: str) -> Response | None:
    """The same for what one can do without."""
    try:
        return (await _properties(dav, url))[1]
    except ProviderError as error:
        if error.code in {"not_found", "forbidden", "bad_answer", "not_allowed"}:
            return None
        raise


async def _calendars(dav: Dav, home: str) -> list[tuple[str, Response]]:
    answer = await dav.multistatus("PROPFIND", home, xml.propfind(_PROPS), depth="1")
    return [(urljoin(home, r.href), r) for r in answer.responses if _is_calendar(r) and _holds_events(r)]


def _is_calendar(found: Response) -> bool:
    return f"{CALDAV}calendar" in xml.names_in(found.found.get(f"{DAV}resourcetype"))


def _holds_events(found: Response) -> bool:
    kinds = found.found.get(f"{CALDAV}supported-calendar-component-set")
    return kinds is None or len(kinds) == 0 or any(kind.get("name", "").upper() == "VEVENT" for kind in kinds)


def _likelihood(url: str, found: Response) -> int:
    last = urlsplit(url).path.rstrip("/").rpartition("/")[2].lower()
    names = {last, (found.text(f"{DAV}displayname") or "").lower()}
    return next((i for i, name in enumerate(_LIKELY) if name in names), len(_LIKELY))


def _href(base: str, found: Response, name: str) -> str | None:
    hrefs = found.hrefs(name)
    return urljoin(base, hrefs[0]) if hrefs else None


def _owners(found: Response | None) -> frozenset[str]:
    if found is None:
        return frozenset()
    addresses = (href.lower() for href in found.hrefs(f"{CALDAV}calendar-user-address-set"))
    return frozenset(a.removeprefix("mailto:") for a in addresses if a.startswith("mailto:"))


def _located(url: str, found: Response, owners: frozenset[str]) -> Located:
    url = url if url.endswith("/") else url + "/"
    return Located(url=url, owners=owners, timezone=found.text(f"{CALDAV}calendar-timezone"))
