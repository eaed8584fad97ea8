"""What every adapter does, tried against real servers: one suite for all of them (CalDAV so far)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from peers import PASSWORD, USER, CalendarServer, Proxy, answered, calendar

from kalends_calendar_sync.providers import adapter
from kalends_calendar_sync.providers.base import Account, Adapter, Page, ProviderError
from kalends_shared.net import Policy

POLICY = Policy(["127.0.0.0/8"], allow_http=True)
EVENT = "DTSTART:20260406T100000Z\nDTEND:20260406T110000Z\nSUMMARY:Lunch"
OTHER = "DTSTART:20260407T100000Z\nDTEND:20260407T110000Z\nSUMMARY:Dinner"


def connect(url: str, password: str = PASSWORD) -> Adapter:
    return adapter("caldav", Account(url=url, username=USER, password=password), POLICY, 60.0)


@pytest.fixture
async def calendars(server: CalendarServer) -> AsyncIterator[Adapter]:
    made = connect(server.url)
    yield made
    await made.close()


class Reader:
    """Keeps what was read, as the service does."""

    def __init__(self, calendars: Adapter) -> None:
        self.calendars = calendars
        self.known: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.token: str | None = None
        self.read = 0
        self.complete = False

    async def etags(self) -> dict[str, str]:
        return dict(self.known)

    async def go_on(self, *, whole: bool = False) -> "Reader":
        self.read, self.complete = 0, False
        last: Page | None = None
        async for page in self.calendars.changes(self.token, self.etags, whole=whole):
            last = page
            for item in page.items:
                self.known[item.ref], self.texts[item.ref] = item.etag, item.text or ""
                self.read += 1
            for ref in [*page.gone, *(set(self.known) - page.present if page.complete else ())]:
                self.known.pop(ref, None)
                self.texts.pop(ref, None)
        assert last is not None
        assert last.last
        assert last.token
        self.token, self.complete = last.token, last.complete
        return self

    def titles(self) -> list[str]:
        return sorted(
            line[8:] for text in self.texts.values() for line in text.splitlines() if line.startswith("SUMMARY")
        )


async def test_first_everything_then_what_changed(server: CalendarServer, calendars: Adapter) -> None:
    server.put("a", EVENT)
    reader = await Reader(calendars).go_on()
    assert reader.titles() == ["Lunch"]
    assert reader.complete
    assert (await reader.go_on()).read == 0
    server.put("b", OTHER)
    assert (await reader.go_on()).titles() == ["Dinner", "Lunch"]
    assert reader.read == 1
    assert not reader.complete
    server.put("a", OTHER)
    assert (await reader.go_on()).titles() == ["Dinner", "Dinner"]
    server.delete("a")
    assert (await reader.go_on()).titles() == ["Dinner"]
    assert reader.read == 0


async def test_a_whole_reading_reads_only_what_is_not_known(server: CalendarServer, calendars: Adapter) -> None:
    for name in "abc":
        server.put(name, EVENT)
    reader = await Reader(calendars).go_on()
    server.put("c", OTHER)
    server.delete("a")
    await reader.go_on(whole=True)
    assert reader.complete
    assert (reader.titles(), reader.read) == (["Dinner", "Lunch"], 1)


@pytest.mark.parametrize(
    "token", ["sync:no-such-token", "sync:http://radicale.org/ns/sync/" + "0" * 64, "ctag:old", "none:"]
)
async def test_a_token_that_is_not_known_leads_to_a_whole_reading(
    server: CalendarServer, calendars: Adapter, token: str
) -> None:
    server.put("a", EVENT)
    reader = Reader(calendars)
    reader.token = token
    await reader.go_on()
    assert reader.complete
    assert reader.titles() == ["Lunch"]


async def test_more_than_a_batch(server: CalendarServer, calendars: Adapter) -> None:
    for number in range(120):
        server.put(f"e{number}", EVENT)
    assert (await Reader(calendars).go_on()).read == 120


async def test_create_change_and_remove(server: CalendarServer, calendars: Adapter) -> None:
    ref = calendars.ref_for("bkg_1@kalends")
    etag = await calendars.put(ref, calendar("bkg_1@kalends", EVENT), None)
    item = await calendars.get(ref)
    assert item is not None
    assert item.etag == etag
    assert "SUMMARY:Lunch" in (item.text or "")
    newer = await calendars.put(ref, calendar("bkg_1@kalends", OTHER), etag)
    assert newer != etag
    await calendars.delete(ref, newer)
    assert await calendars.get(ref) is None
    await calendars.delete(ref, newer)
    assert server.items() == {}


async def test_what_is_read_is_found_where_it_was_written(calendars: Adapter) -> None:
    ref = calendars.ref_for("bkg_1 ä%41@kalends")
    etag = await calendars.put(ref, calendar("bkg_1", EVENT), None)
    reader = await Reader(calendars).go_on()
    assert reader.known == {ref: etag}


async def test_a_version_that_is_not_there_any_more_is_a_conflict(server: CalendarServer, calendars: Adapter) -> None:
    ref = calendars.ref_for("a")
    etag = await calendars.put(ref, calendar("a", EVENT), None)
    for attempt in (
        calendars.put(ref, calendar("a", OTHER), None),
        calendars.put(ref, calendar("a", OTHER), '"another"'),
        calendars.delete(ref, '"another"'),
    ):
        with pytest.raises(ProviderError) as refused:
            await attempt
        assert refused.value.code == "conflict"
    server.delete("a")
    with pytest.raises(ProviderError) as refused:
        await calendars.put(ref, calendar("a", OTHER), etag)
    assert refused.value.code == "conflict"


async def test_discovery_from_every_url_that_people_have(server: CalendarServer) -> None:
    for url in (server.url, server.url.rstrip("/"), server.root):
        calendars = connect(url)
        assert (await calendars.locate()).url.startswith(server.root)
        if url != server.root:
            assert (await calendars.locate()).url == server.url
        await calendars.close()


async def test_a_url_without_a_calendar(radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        proxy.spoil = lambda _: answered("404 Not Found")
        calendars = connect(proxy.url)
        with pytest.raises(ProviderError) as refused:
            await calendars.locate()
        assert refused.value.code == "not_found"
        await calendars.close()


async def test_a_wrong_password(radicale: CalendarServer) -> None:
    calendars = connect(radicale.url, "wrong")
    for attempt in (calendars.locate(), calendars.get(calendars.ref_for("a")), Reader(calendars).go_on()):
        with pytest.raises(ProviderError) as refused:
            await attempt
        assert refused.value.code == "unauthorized"
    await calendars.close()


HTML = answered("200 OK", "<html>Welcome to the hotel's network</html>")
SPOILT: dict[str, tuple[Any, set[str]]] = {
    "html instead of an answer": (HTML, {"bad_answer"}),
    "half an answer": (answered("207 Multi-Status", '<multistatus xmlns="DAV:"><response><href>/a'), {"bad_answer"}),
    "an answer with entities": (
        answered("207 Multi-Status", '<!DOCTYPE x [<!ENTITY a "b">]><multistatus xmlns="DAV:">&a;</multistatus>'),
        {"bad_answer"},
    ),
    "a server in trouble": (answered("500 Oh"), {"unreachable"}),
    "a server with too much to do": (answered("503 Later", "", "Retry-After: 7\r\n"), {"rate_limited"}),
    "forbidden": (answered("403 No"), {"forbidden"}),
    "a connection cut": ("drop", {"unreachable"}),
    "a redirect": (answered("302 Away", "", "Location: https://example.com/\r\n"), {"bad_answer", "not_allowed"}),
}


@pytest.mark.parametrize("what", SPOILT)
async def test_what_goes_wrong_is_told(radicale: CalendarServer, what: str) -> None:
    spoilt, codes = SPOILT[what]
    async with Proxy(radicale.url) as proxy:
        proxy.spoil = lambda _: spoilt
        calendars = connect(proxy.url)
        for attempt in (calendars.locate(), Reader(calendars).go_on(), Reader(calendars).go_on(whole=True)):
            with pytest.raises(ProviderError) as refused:
                await attempt
            assert refused.value.code in codes
            if "Retry-After" in str(spoilt):
                assert refused.value.retry_after == 7
        await calendars.close()


async def test_an_answer_without_end_is_cut_off(radicale: CalendarServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kalends_calendar_sync.providers.caldav.http.MAX_BODY", 50_000)
    async with Proxy(radicale.url) as proxy:
        proxy.spoil = lambda _: answered("207 Multi-Status", " " * 100_000)
        calendars = connect(proxy.url)
        with pytest.raises(ProviderError, match="longer"):
            await calendars.locate()
        await calendars.close()


async def test_what_is_packed_is_not_unpacked(radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        proxy.spoil = lambda _: answered("207 Multi-Status", "x", "Content-Encoding: gzip\r\n")
        calendars = connect(proxy.url)
        with pytest.raises(ProviderError, match="packed"):
            await calendars.locate()
        await calendars.close()


async def test_a_server_that_drips_comes_to_an_end(radicale: CalendarServer) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 100000\r\n\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    calendars = adapter("caldav", Account(url=f"http://127.0.0.1:{port}/"), POLICY, 2.0)
    with pytest.raises(ProviderError, match="too long"):
        await calendars.locate()
    await calendars.close()
    server.close()


async def test_digest_where_the_server_wants_it(radicale: CalendarServer) -> None:
    challenge = 'WWW-Authenticate: Digest realm="x", nonce="abc", qop="auth", algorithm=MD5\r\n'

    def spoil(head: str) -> bytes:
        if "authorization: digest" in head.lower():
            return answered("404 Not Found") if "GET" in head else answered("500 Oh")
        return answered("401 Unauthorized", "", challenge)

    async with Proxy(radicale.url) as proxy:
        proxy.spoil = spoil
        calendars = connect(proxy.url)
        assert await calendars.get(calendars.ref_for("a")) is None
        await calendars.close()


async def test_an_etag_that_does_not_come_is_read(radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        calendars, ref = connect(proxy.url), httpx.URL(radicale.url).path + "a.ics"
        real = connect(radicale.url)
        etag = await real.put(ref, calendar("a", EVENT), None)
        proxy.spoil = lambda head: answered("201 Created") if head.startswith("PUT") else None
        assert await calendars.put(ref, calendar("a", EVENT), None) == etag
        await calendars.close()
        await real.close()


async def test_a_lost_answer_may_have_had_its_effect(radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        proxy.spoil = lambda _: "drop"
        calendars = connect(proxy.url)
        with pytest.raises(ProviderError) as refused:
            await calendars.put(calendars.ref_for("a"), calendar("a", EVENT), None)
        assert refused.value.sent
        assert len(radicale.items()) == 1
        await calendars.close()


async def test_the_password_stays_with_its_server(radicale: CalendarServer) -> None:
    elsewhere = (
        '<multistatus xmlns="DAV:"><response><href>/</href><propstat><prop><current-user-principal>'
        "<href>http://127.0.0.2:9/p/</href></current-user-principal></prop><status>HTTP/1.1 200 OK</status>"
        "</propstat></response></multistatus>"
    )
    async with Proxy(radicale.url) as proxy:
        proxy.spoil = lambda _: answered("207 Multi-Status", elsewhere)
        calendars = connect(proxy.url)
        with pytest.raises(ProviderError) as refused:
            await calendars.locate()
        assert refused.value.code in {"not_found", "not_allowed"}
        await calendars.close()


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/dav/", "http://[::1]/dav/", "ftp://example.com/", "http://u:p@127.0.0.1/"]
)
async def test_addresses_that_may_not_be_called(url: str) -> None:
    calendars = connect(url)
    with pytest.raises(ProviderError) as refused:
        await calendars.locate()
    assert refused.value.code == "not_allowed"
    await calendars.close()
