"""The address policy, and that what dials obeys it on the address that is dialled."""

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kalends_shared import net
from kalends_shared.service import run_loop

CLOSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "fe80::1",
    "febf::1",
    "fc00::1",
    "fdff::1",
    "ff02::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff::1",
    "100::1",
    "5f00::1",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "::10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2002:c0a8:101::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2a00:1450::5efe:10.0.0.1",
    "fe80::5efe:8.8.8.8",
    "4000::1",
    "8000::1",
]
OPEN = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "126.255.255.255",
    "128.0.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]


@pytest.mark.parametrize("text", CLOSED)
def test_what_is_not_public_is_closed(text: str) -> None:
    assert not net.Policy().allows(ip_address(text))


@pytest.mark.parametrize("text", OPEN)
def test_what_is_public_is_open(text: str) -> None:
    assert net.Policy().allows(ip_address(text))


def test_the_operator_opens_networks_and_no_more() -> None:
    policy = net.Policy(["127.0.0.0/8", "fd00::/8"])
    assert all(
        policy.allows(ip_address(a)) for a in ("127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "fd00::1", "8.8.8.8")
    )
    assert not any(policy.allows(ip_address(a)) for a in ("10.0.0.1", "::1", "fe80::5efe:127.0.0.1", "::ffff:10.0.0.1"))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "https://", "https:///x", "example.com", "https://user:pw@example.com/", "https://user@example.com/",
        "https://@example.com/", "https://example.com:22/", "https://example.com:8/", "https://example.com:0/", "https://example.com:99999/",
        "https://example.com:x/", "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://[::1]/",
        "https://[::ffff:7f00:1]/", "https://[fe80::1%25eth0]/", "https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://10.0.0.1./",
        "https://exa mple.com/", "https://example.com\\@10.0.0.1/", "https://169.254.169.254/latest", "https://[::",
        "https://\N{FULLWIDTH DIGIT ONE}27.0.0.1/", "https://127\N{IDEOGRAPHIC FULL STOP}0.0.1/", "https://\N{CIRCLED LATIN SMALL LETTER L}ocalhost/",
        "https://a..example.com/", "https://\N{LATIN SMALL LETTER E WITH ACUTE}..example.com/", "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 127 + "com/", "https://%31%32%37.0.0.1/", "https://exa%6dple.com/", "https://8.8.8.8%lo/", "https://exam*ple.com/",
        "https://a,b/", 'https://a"b/', "https://[::1].example.com/", "http://a@b#@c", "HTTP://8.8.8.8/",
        "https://8.8.8.8:443#@10.0.0.1:x/\r\nX: y", " https://example.com/", "https://example.com\t/", "https://example.com:443:80/",
    ],
)  # fmt: skip
def test_urls_that_may_not_be_called(url: str) -> None:
    with pytest.raises(net.UrlNotAllowedError):
        net.Policy().check_url(url)


def test_urls_that_may_be_called() -> None:
    for url in (
        "https://example.com/x?y=1",
        "https://example.com:443/",
        "https://example.com:80/",
        "https://example.com:1024/",
        "https://8.8.8.8/",
        "https://[2606:4700::1]/",
        "HTTPS://EXAMPLE.COM./",
        "https://hooks_1.b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/?@10.0.0.1#@10.0.0.1",
    ):
        net.Policy().check_url(url)
    local = net.Policy(["127.0.0.0/8"], allow_http=True)
    for url in ("http://127.0.0.1:9009/x", "http://localhost:9009/", "https://127.0.0.1:9009/"):
        local.check_url(url)
    with pytest.raises(net.UrlNotAllowedError):
        local.check_url("http://10.0.0.1:9009/")


class Names:
    """Resolves names as the test says; it stands in for DNS, nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[list[str]]]) -> None:
        self.answers, self.asked = answers, 0
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
            if host not in self.answers:
                return real(host, port, *rest, **more)
            self.asked += 1
            found = self.answers[host]
            addresses = found.pop(0) if len(found) > 1 else found[0]
            return [(0, 1, 6, "", (a, port)) for a in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
async def sink() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on loopback that answers 302 to itself; (port, request lines)."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], got
    server.close()


async def test_a_name_that_leads_inside_is_not_dialled(
    monkeypatch: pytest.MonkeyPatch, sink: tuple[int, list[bytes]]
) -> None:
    port, got = sink
    names = Names(monkeypatch, {"inside.test": [["127.0.0.1"]]})
    async with net.client(net.Policy(allow_http=True)) as http:
        with pytest.raises(net.AddressNotAllowedError):
            await http.get(f"http://inside.test:{port}/")
    assert (names.asked, got) == (1, [])


async def test_a_name_is_resolved_once_and_what_was_judged_is_dialled(
    monkeypatch: pytest.MonkeyPatch, sink: tuple[int, list[bytes]]
) -> None:
    """A name that answers differently the second time gains nothing by it; of several addresses the closed ones are left out."""
    port, got = sink
    names = Names(monkeypatch, {"turning.test": [["10.0.0.1", "127.0.0.1"], ["10.0.0.1"]]})
    async with net.client(net.Policy(["127.0.0.1/32"], allow_http=True)) as http:
        answer = await http.get(f"http://turning.test:{port}/hook")
    assert (answer.status_code, names.asked, got) == (302, 1, [b"GET /hook HTTP/1.1"]), "and no redirect is followed"


def test_a_name_whose_server_hangs_holds_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the loop that services run on, whose own resolver has two."""
    real, hung = socket.getaddrinfo, threading.Event()
    asked: list[str] = []

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        if host == "hung.test":
            hung.wait()
            raise socket.gaierror("no such name")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(net, "RESOLVERS", 2)

    async def resolve() -> None:
        policy = net.Policy(["127.0.0.0/8"])
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asyncio.gather(*(policy.resolve("hung.test", 443) for _ in range(3)))
        async with asyncio.timeout(60):
            assert await policy.resolve("127.0.0.1", 443) == ["127.0.0.1"]
            waiting = asyncio.create_task(policy.resolve("hung.test", 443))
            await asyncio.sleep(0)
            hung.set()
            with pytest.raises(socket.gaierror):
                await waiting

    try:
        run_loop(resolve)
    finally:
        hung.set()
    assert sorted(asked) == ["127.0.0.1", "hung.test"]


def test_a_name_whose_server_hangs_does_not_hold_up_the_process_end() -> None:
    program = """
import asyncio, socket, threading
from kalends_shared import net
from kalends_shared.service import run_loop

socket.getaddrinfo = lambda *_, **__: threading.Event().wait()

async def resolve():
    try:
        async with asyncio.timeout(0.05):
            await net.Policy().resolve("hung.test", 443)
    except TimeoutError:
        print("given up")

run_loop(resolve)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "given up\n"), ended.stderr


async def test_no_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, sink: tuple[int, list[bytes]]
) -> None:
    port, got = sink
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    async with net.client(net.Policy(allow_http=True)) as http:
        with pytest.raises(net.AddressNotAllowedError):
            await http.get("http://127.0.0.1:9/")
    assert got == []


async def test_streams_are_dialled_by_the_same_policy(sink: tuple[int, list[bytes]]) -> None:
    port, _ = sink
    with pytest.raises(net.AddressNotAllowedError):
        await net.Policy().connect("127.0.0.1", port)
    _, writer = await net.Policy(["127.0.0.0/8"]).connect("127.0.0.1", port)
    writer.close()
    with pytest.raises(OSError, match=r".+"):
        await net.Policy(["127.0.0.0/8"]).connect("127.0.0.1", 1)


async def test_a_certificate_is_held_to_the_name_not_to_the_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = self_signed("right.test", tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    Names(monkeypatch, {"right.test": [["127.0.0.1"]], "wrong.test": [["127.0.0.1"]]})
    async with net.client(net.Policy(["127.0.0.0/8"]), verify=trusting) as http:
        assert (await http.get(f"https://right.test:{port}/")).status_code == 204
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await http.get(f"https://wrong.test:{port}/")
    server.close()


def self_signed(name: str, folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path
