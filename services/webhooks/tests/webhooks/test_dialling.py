"""Where connections lead: TLS held to the name, names that change their answer, and the operator's proxy."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kalends_shared.contracts.errors import KalendsError
from kalends_shared.net import AddressNotAllowedError, Policy
from kalends_shared.settings import SettingsError, load
from kalends_webhooks.delivery import http1
from kalends_webhooks.delivery.dialing import Dialer, Proxy
from kalends_webhooks.delivery.http1 import Client, Failed, parse_url
from kalends_webhooks.settings import WebhooksSettings

from .receiver import Receiver
from .rig import POLICY, Rig

REQUEST = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


class Names(Policy):
    """Resolves test names, as a resolver under somebody's control would."""

    def __init__(self, answers: dict[str, list[str]], allow: tuple[str, ...] = ("127.0.0.0/8",)) -> None:
        super().__init__(allow, allow_http=True)
        self.answers = answers

    async def resolve(self, host: str, port: int) -> list[str]:
        assert port
        allowed = [one for one in self.answers[host] if self.allows(ip_address(one))]
        if not allowed:
            raise AddressNotAllowedError(host)
        return allowed


@pytest.fixture(autouse=True)
def kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, a connection is kept until the next request."""
    monkeypatch.setattr(http1, "IDLE_SECONDS", 600.0)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of hook.test, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hook.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path / "hook.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@asynccontextmanager
async def tls_receiver(certificate: Path) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"{}"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure")
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def proxy_server(seen: list[str], refuse: bool = False) -> AsyncIterator[int]:
    """A CONNECT proxy that keeps what it was asked."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(head)
        if refuse:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = head.split(" ")[1].rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_tls_is_held_to_the_name(certificate: Path):
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with tls_receiver(certificate) as port:
        names = Names({name: ["127.0.0.1"] for name in ("hook.test", "hook.test.", "other.test")})
        client = Client(Dialer(names, trusting))
        for name in ("hook.test", "hook.test."):
            assert (await client.post(parse_url(f"https://{name}:{port}/"), REQUEST, 60)).head == b"secure"
        with pytest.raises(Failed, match="certificate_not_valid"):
            await client.post(parse_url(f"https://other.test:{port}/"), REQUEST, 60)
        with pytest.raises(Failed, match="certificate_not_valid"):
            await Client(Dialer(names)).post(parse_url(f"https://hook.test:{port}/"), REQUEST, 60)
        client.close()


async def test_a_silent_address_leaves_time_for_the_next(certificate: Path):
    """It takes the connection, and never says a word of TLS."""
    trusting = ssl.create_default_context(cafile=str(certificate))
    hung_up = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            continue
        hung_up.set()
        writer.close()

    async with tls_receiver(certificate) as port:
        server = await asyncio.start_server(silent, "127.0.0.2", port)
        client = Client(Dialer(Names({"hook.test": ["127.0.0.2", "127.0.0.1"]}), trusting))
        url = parse_url(f"https://hook.test:{port}/")
        assert (await client.post(url, REQUEST, 10)).head == b"secure"
        await asyncio.wait_for(hung_up.wait(), 60)
        client.close()
        with pytest.raises(Failed, match="timeout"):
            await Client(Dialer(Names({"hook.test": ["127.0.0.2"] * 2}), trusting)).post(url, REQUEST, 0.5)
        server.close()


async def test_a_receiver_that_does_not_read_is_hung_up_on():
    """What is sent is more than the sockets between hold, so that it cannot even be written."""
    timed_out, gone = asyncio.Event(), asyncio.Event()

    async def asleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await timed_out.wait()
        with suppress(ConnectionResetError):
            while await reader.read(65_536):
                continue
        gone.set()
        writer.close()

    server = await asyncio.start_server(asleep, "127.0.0.1", 0)
    url = parse_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    with pytest.raises(Failed, match="timeout"):
        await Client(Dialer(POLICY)).post(url, REQUEST + bytes(32 << 20), 1)
    timed_out.set()
    await asyncio.wait_for(gone.wait(), 60)
    server.close()


async def test_of_a_names_addresses_only_the_allowed_are_dialled(receiver: Receiver):
    names = Names({"mixed.test": ["10.0.0.1", "::1", "127.0.0.1"], "inside.test": ["10.0.0.1", "169.254.169.254"]})
    client = Client(Dialer(names))
    url = f"http://mixed.test:{receiver.port}/hook"
    assert (await client.post(parse_url(url), REQUEST, 60)).status == 200
    with pytest.raises(Failed, match="address_not_allowed"):
        await client.post(parse_url(f"http://inside.test:{receiver.port}/hook"), REQUEST, 60)
    client.close()


async def test_a_name_that_changes_its_answer_leads_nowhere_new(receiver: Receiver):
    names = Names({"moving.test": ["127.0.0.1"]})
    client = Client(Dialer(names))
    url = parse_url(f"http://moving.test:{receiver.port}/hook")
    assert (await client.post(url, REQUEST, 60)).status == 200
    names.answers["moving.test"] = ["10.0.0.1"]
    assert (await client.post(url, REQUEST, 60)).status == 200, "the kept connection leads where it was checked"
    client.close()
    with pytest.raises(Failed, match="address_not_allowed"):
        await client.post(url, REQUEST, 60)


# One or more of each entry of the list that senders of webhooks keep, and of each form that hides one.
NOT_PUBLIC = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.170", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1",
    "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1", "2002:a00:1::1", "2001::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]  # fmt: skip


class Dns:
    """The system's resolver, under somebody's control: answers of a name in turn, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self.answers = {f"{name}.test": turns for name, turns in answers.items()}
        self.asked: list[str] = []
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
            if host not in self.answers:
                return real(host, port, *rest, **more)
            self.asked.append(host)
            turns = self.answers[host]
            found = turns.pop(0) if len(turns) > 1 else turns[0]
            return [(socket.AF_INET6 if ":" in one else socket.AF_INET, 1, 6, "", (one, port)) for one in found]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_no_name_leads_to_an_address_that_is_not_public(monkeypatch: pytest.MonkeyPatch, receiver: Receiver):
    """By the resolver that every dial uses, with nothing allowed besides; neither directly nor through a proxy."""
    Dns(monkeypatch, inside=[[one] for one in NOT_PUBLIC] * 2)
    seen: list[str] = []
    async with proxy_server(seen) as proxy:
        for through in (None, Proxy("127.0.0.1", proxy)):
            client = Client(Dialer(Policy(allow_http=True), proxy=through))
            for _ in NOT_PUBLIC:
                with pytest.raises(Failed, match="address_not_allowed"):
                    await client.post(parse_url(f"http://inside.test:{receiver.port}/hook"), REQUEST, 60)
    assert (receiver.connections, seen) == (0, [])


async def test_a_name_is_resolved_once_and_what_was_judged_is_dialled(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
):
    """A name that answers otherwise between the check and the dial would lead inside by the second answer."""
    dns = Dns(monkeypatch, turning=[["127.0.0.1"], ["10.0.0.1"]])
    client = Client(Dialer(POLICY))
    url = parse_url(f"http://turning.test:{receiver.port}/hook")
    assert (await client.post(url, REQUEST, 60)).status == 200
    assert dns.asked == ["turning.test"]
    client.close()
    with pytest.raises(Failed, match="address_not_allowed"):
        await client.post(url, REQUEST, 60)


async def test_a_name_is_judged_when_it_is_subscribed_and_at_each_attempt(
    monkeypatch: pytest.MonkeyPatch, rig: Rig, receiver: Receiver
):
    Dns(monkeypatch, inside=[["10.0.0.1"]], turning=[["127.0.0.1"], ["192.168.0.1"]])
    with pytest.raises(KalendsError) as refused:
        await rig.subscribe("http://inside.test:8080/")
    assert (refused.value.fields[0].pointer, refused.value.fields[0].code) == ("#/url", "url_not_allowed")
    turning = await rig.subscribe(f"http://turning.test:{receiver.port}/hook", ["booking.confirmed"], retry_schedule=[])
    with pytest.raises(KalendsError) as refused:
        await rig.ask("patch_webhook", {"url": "http://inside.test:8080/"}, id=turning["id"])
    assert refused.value.fields[0].code == "url_not_allowed"
    await rig.book()
    attempt = (await rig.ended(turning))[0]["attempts"][0]
    assert (attempt["error"], receiver.connections) == ("address_not_allowed", 0)


async def test_a_url_that_no_name_server_could_take_harms_nobody(still: Rig, receiver: Receiver):
    """It is refused; and were it in the table all the same, others would be told as ever."""
    with pytest.raises(KalendsError) as refused:
        await still.subscribe("http://\N{LATIN SMALL LETTER E WITH ACUTE}..test/", ["booking.confirmed"])
    assert refused.value.fields[0].code == "url_not_allowed"
    odd = await still.subscribe(receiver.url("/odd"), ["booking.confirmed"], retry_schedule=[])
    await still.subscribe(receiver.url(), ["booking.confirmed"])
    wanted = (await still.value("SELECT wanted FROM subscriptions WHERE id = $1", odd["id"])).decode()
    wanted = wanted.replace(receiver.url("/odd"), "http://\N{LATIN SMALL LETTER E WITH ACUTE}..test/")
    await still.db.pool.execute("UPDATE subscriptions SET wanted = $1 WHERE id = $2", wanted.encode(), odd["id"])
    async with still.running():
        await still.book()
        await receiver.wait(1)
        assert (await still.ended(odd))[0]["attempts"][0]["error"] == "address_not_allowed"


async def test_a_proxy_is_told_checked_addresses_and_never_a_name(receiver: Receiver, certificate: Path):
    seen: list[str] = []
    trusting = ssl.create_default_context(cafile=str(certificate))
    names = Names({"hook.test": ["127.0.0.1"], "inside.test": ["10.0.0.1"]})
    async with proxy_server(seen) as proxy_port, tls_receiver(certificate) as tls_port:
        client = Client(Dialer(names, trusting, Proxy.parse(f"http://me:p%40ss@127.0.0.1:{proxy_port}")))
        plain = parse_url(f"http://hook.test:{receiver.port}/hook")
        assert [(await client.post(plain, REQUEST, 60)).status for _ in range(2)] == [200, 200]
        assert (await client.post(parse_url(f"https://hook.test:{tls_port}/"), REQUEST, 60)).head == b"secure"
        with pytest.raises(Failed, match="address_not_allowed"):
            await client.post(parse_url(f"http://inside.test:{receiver.port}/hook"), REQUEST, 60)
        client.close()
    assert [head.split("\r\n")[0] for head in seen] == [
        f"CONNECT 127.0.0.1:{receiver.port} HTTP/1.1",
        f"CONNECT 127.0.0.1:{tls_port} HTTP/1.1",
    ]
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in seen[0]
    assert "hook.test" not in "".join(seen)


async def test_a_proxy_that_refuses_or_is_away_is_named(receiver: Receiver, dead_port: int):
    url = parse_url(receiver.url())
    async with proxy_server([], refuse=True) as port:
        for proxy in (port, dead_port):
            client = Client(Dialer(POLICY, proxy=Proxy.parse(f"http://127.0.0.1:{proxy}")))
            with pytest.raises(Failed, match="proxy_failed"):
                await client.post(url, REQUEST, 60)
    assert receiver.got == []


@pytest.mark.parametrize("text", ["https://p:1", "p:3128", "http://", "http://p/path", "socks5://p:1"])
def test_what_is_no_proxy_is_told(text: str):
    with pytest.raises(ValueError, match="proxy"):
        Proxy.parse(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALLOW_ADDRESSES", "10.0.0.1/8"), ("ALLOW_ADDRESSES", "intranet.example"), ("WEBHOOKS_PROXY", "http://p:99999")],
)
def test_the_operators_slips_are_told_by_name(name: str, value: str):
    needed = {"KALENDS_DATABASE_URL": "postgresql://h/d", "KALENDS_SECRET_KEY": "k"}
    with pytest.raises(SettingsError, match=f"KALENDS_{name}: "):
        load(WebhooksSettings, needed | {f"KALENDS_{name}": value})


def test_urls_are_taken_apart():
    one = parse_url("https://bücher.example:8443/a b/ü?x=1&y=é#part")
    assert (one.origin.host, one.origin.port, one.origin.tls) == ("xn--bcher-kva.example", 8443, True)
    assert (one.authority, one.target) == ("xn--bcher-kva.example:8443", "/a%20b/%C3%BC?x=1&y=%C3%A9")
    two = parse_url("http://[::1]/")
    assert (two.origin.host, two.origin.port, two.authority, two.target) == ("::1", 80, "[::1]", "/")
