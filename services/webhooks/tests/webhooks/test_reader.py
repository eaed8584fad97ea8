"""Responses as they come over the wire: whole, in pieces, and wrong."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalends_webhooks.delivery.reader import BODY_LIMIT, ProtocolError, ResponseReader

WHOLE = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    (b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", 204, b"", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;a=b\r\n...\r\n0\r\n\r\n", 200, b"ok...", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: 1\r\n\r\n", 200, b"x", True),
    (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\n1", 201, b"1", True),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1", 200, b"1", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1", 200, b"1", False),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\n1", 200, b"1", True),
    (b"HTTP/1.1 500\nContent-Length: 1\n\n1", 500, b"1", True),
]


@pytest.mark.parametrize("row", WHOLE, ids=lambda row: row[0][:40])
def test_a_response_in_one_piece(row: tuple[bytes, int, bytes, bool]):
    reader = ResponseReader()
    reader.feed(row[0])
    assert (reader.done, reader.status, bytes(reader.body), reader.reusable) == (True, *row[1:])


@given(row=st.sampled_from(WHOLE), cuts=st.lists(st.integers(0, 120), max_size=12))
def test_a_response_in_any_pieces(row: tuple[bytes, int, bytes, bool], cuts: list[int]):
    reader = ResponseReader()
    edges = sorted({0, len(row[0]), *(cut for cut in cuts if cut < len(row[0]))})
    for start, end in itertools.pairwise(edges):
        assert not reader.done
        reader.feed(row[0][start:end])
    assert (reader.done, reader.status, bytes(reader.body), reader.reusable) == (True, *row[1:])


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3b9aca00\r\n",
    ],
)
def test_a_huge_body_is_read_to_a_bound(head: bytes):
    reader = ResponseReader()
    reader.feed(head)
    for _ in range(3):
        if not reader.done:
            reader.feed(b"x" * BODY_LIMIT)
    assert (reader.done, len(reader.body), reader.reusable) == (True, BODY_LIMIT, False)
    assert len(reader._buffer) <= BODY_LIMIT


@pytest.mark.parametrize(
    ("begin", "again", "status"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"T: 1\r\n", 200),
    ],
)
def test_what_may_come_without_end_beside_a_body_is_read_to_a_bound(begin: bytes, again: bytes, status: int | None):
    reader = ResponseReader()
    reader.feed(begin)
    with pytest.raises(ProtocolError, match="too long"):
        reader.feed(again * 20_000)
    assert reader.status == status


def test_a_body_without_a_length_ends_with_the_connection():
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nall there is")
    assert not reader.done
    reader.eof()
    assert (reader.done, bytes(reader.body), reader.reusable) == (True, b"all there is", False)


def test_what_comes_after_a_response_spoils_the_connection():
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\n")
    assert (reader.done, reader.reusable) == (True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000,
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 40_000,
    ],
)
def test_what_is_no_response_is_told(wrong: bytes):
    with pytest.raises(ProtocolError):
        ResponseReader().feed(wrong)


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
def test_too_early_an_end_is_told(cut: bytes):
    reader = ResponseReader()
    reader.feed(cut)
    with pytest.raises(ProtocolError):
        reader.eof()


@given(st.binary(max_size=200))
def test_nothing_else_escapes(noise: bytes):
    for head in (b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        reader = ResponseReader()
        try:
            reader.feed(head + noise)
            reader.eof()
        except ProtocolError:
            continue
