"""A CalDAV calendar as an Adapter. A ref is the path of a resource; a token is a sync-token, or a collection's ctag."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from kalends_calendar_sync.providers.base import Account, Etags, Item, Located, Page, ProviderError
from kalends_calendar_sync.providers.caldav import discovery, xml
from kalends_calendar_sync.providers.caldav.http import Dav, refused
from kalends_calendar_sync.providers.caldav.xml import CALDAV, CALSERVER, DAV, Response
from kalends_shared.net import Policy

BATCH: Final = 100
MAX_ITEM: Final = 1024 * 1024
MAX_ROUNDS: Final = 1000
_SYNC, _CTAG, _NONE = "sync:", "ctag:", "none:"
_ICS: Final = {"Content-Type": "text/calendar; charset=utf-8"}
# How servers refuse a token that they no longer know: Radicale and Cyrus 403, Xandikos 412, others 409, 410 or 400.
_BAD_TOKEN: Final = frozenset({"forbidden", "conflict", "not_found", "bad_answer"})


class CalDav:
    """Implements `base.Adapter`; `account.url` is the collection's own, except for `locate`."""

    def __init__(self, account: Account, policy: Policy, timeout: float) -> None:
        self._dav = Dav(account, policy, timeout)
        self._url = account.url

    async def close(self) -> None:
        await self._dav.close()

    async def locate(self) -> Located:
        return await discovery.locate(self._dav, self._url)

    async def changes(self, token: str | None, known: Etags, *, whole: bool = False) -> AsyncIterator[Page]:
        if token is not None and not whole:
            if token.startswith(_SYNC):
                try:
                    async for page in self._since(token.removeprefix(_SYNC), known):
                        yield page
                except ProviderError as error:
                    if error.code not in _BAD_TOKEN:
                        raise
                else:
                    return
            elif token.startswith(_CTAG) and token == await self._place():
                yield Page(token=token, last=True)
                return
        async for page in self._all(known):
            yield page

    async def get(self, ref: str) -> Item | None:
        answer = await self._dav.request("GET", self._at(ref))
        if answer.status in {404, 410}:
            return None
        if answer.status != 200:
            raise refused(answer)
        etag = answer.headers.get("ETag")
        if etag is None:
            found = await self._dav.multistatus("PROPFIND", self._at(ref), xml.propfind(["d:getetag"]))
            etag = found.responses[0].text(f"{DAV}getetag") if found.responses else None
        return Item(ref, etag or "", _decoded(answer.body))

    def ref_for(self, uid: str) -> str:
        return unquote(urlsplit(self._url).path) + uid + ".ics"

    async def put(self, ref: str, text: str, etag: str | None) -> str:
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": etag}
        answer = await self._dav.request("PUT", self._at(ref), text.encode(), _ICS | condition)
        if answer.status in {404, 409, 410} and etag is not None:
            raise ProviderError("conflict", "the item is gone")
        if answer.status not in {200, 201, 204}:
            raise refused(answer)
        made = answer.headers.get("ETag")
        if made:
            return str(made)
        # RFC 4791 5.3.4: without an ETag the server has changed what we wrote.
        item = await self.get(ref)
        if item is None:
            raise ProviderError("bad_answer", "what was written is not there", sent=True)
        return item.etag

    async def delete(self, ref: str, etag: str) -> None:
        answer = await self._dav.request("DELETE", self._at(ref), None, {"If-Match": etag})
        if answer.status not in {200, 202, 204, 404, 410}:
            raise refused(answer)

    def _at(self, ref: str) -> str:
        return urljoin(self._url, quote(ref, safe="/@:!$&'()*+,;=~"))

    async def _since(self, token: str, known: Etags) -> AsyncIterator[Page]:
        """sync-collection from a token on; a server that cuts its answer short (507) is asked on."""
        for _ in range(MAX_ROUNDS):
            answer = await self._dav.multistatus("REPORT", self._url, xml.sync_collection(token))
            if answer.token is None:
                raise ProviderError("bad_answer", "the server gave no new token")
            more = any(r.status == 507 for r in answer.responses)
            changed, gone = self._sorted(answer.responses)
            stale = await _changed(changed, known)
            async for page in self._read(stale):
                yield page
            yield Page(gone=gone, token=_SYNC + answer.token, last=not more)
            if not more:
                return
            token = answer.token
        raise ProviderError("bad_answer", "the server gives its changes without end")

    async def _all(self, known: Etags) -> AsyncIterator[Page]:
        """Every ref and etag, and the items that are not known as they are. The token is taken before the list is."""
        token = await self._place()
        names = xml.propfind(["d:getetag", "d:resourcetype"])
        answer = await self._dav.multistatus("PROPFIND", self._url, names, depth="1")
        changed, _ = self._sorted(answer.responses)
        stale = await _changed(changed, known)
        missing: set[str] = set()
        async for page in self._read(stale):
            missing.update(page.gone)
            yield page
        yield Page(token=token, present=frozenset(changed) - missing, complete=True, last=True)

    async def _place(self) -> str:
        """The collection's token: its sync-token where it knows that report, else its ctag, else none."""
        names = xml.propfind(["d:sync-token", "d:supported-report-set", "s:getctag"])
        answer = await self._dav.multistatus("PROPFIND", self._url, names)
        if not answer.responses:
            raise ProviderError("bad_answer", "the answer names no collection")
        found = answer.responses[0]
        sync, ctag = found.text(f"{DAV}sync-token"), found.text(f"{CALSERVER}getctag")
        reports = found.found.get(f"{DAV}supported-report-set")
        if sync and (reports is None or f"{DAV}sync-collection" in xml.names_in(reports)):
            return _SYNC + sync
        return _CTAG + ctag if ctag else _NONE

    def _sorted(self, responses: Sequence[Response]) -> tuple[dict[str, str], list[str]]:
        """Etags by ref of what is there, and the refs of what is gone; the collection itself is neither."""
        own = unquote(urlsplit(self._url).path).rstrip("/")
        changed: dict[str, str] = {}
        gone: list[str] = []
        for response in responses:
            ref = self._ref(response.href)
            if ref.rstrip("/") == own or f"{DAV}collection" in xml.names_in(response.found.get(f"{DAV}resourcetype")):
                continue
            if response.status in {404, 410}:
                gone.append(ref)
            elif response.status == 200:
                changed[ref] = response.text(f"{DAV}getetag") or ""
        return changed, gone

    def _ref(self, href: str) -> str:
        return unquote(urlsplit(urljoin(self._url, href)).path)

    async def _read(self, refs: Sequence[str]) -> AsyncIterator[Page]:
        for start in range(0, len(refs), BATCH):
            some = refs[start : start + BATCH]
            body = xml.multiget(quote(ref, safe="/@:!$&'()*+,;=~") for ref in some)
            answer = await self._dav.multistatus("REPORT", self._url, body, depth="1")
            items: list[Item] = []
            gone: list[str] = []
            for response in answer.responses:
                ref = self._ref(response.href)
                element = response.found.get(f"{CALDAV}calendar-data")
                if response.status in {404, 410}:
                    gone.append(ref)
                elif element is not None:
                    text = element.text or ""
                    items.append(
                        Item(ref, response.text(f"{DAV}getetag") or "", text if len(text) <= MAX_ITEM else None)
                    )
            yield Page(items=items, gone=gone)


async def _changed(found: Mapping[str, str], known: Etags) -> list[str]:
    """The refs to read; one whose server tells no etag is always read."""
    if not found:
        return []
    before = await known()
    return [ref for ref, etag in found.items() if not etag or before.get(ref) != etag]


def _decoded(body: bytes) -> str | None:
    return body.decode("utf-8", "replace") if len(body) <= MAX_ITEM else None
