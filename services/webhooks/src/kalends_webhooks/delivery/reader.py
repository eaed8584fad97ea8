"""Reads one HTTP/1.1 response (RFC 9112) out of bytes as they come, and of its body no more than a bounded head."""

from typing import Final

HEAD_LIMIT: Final = 32_768
BODY_LIMIT: Final = 16_384
_LINE_LIMIT: Final = 4_096
_NO_BODY: Final = frozenset({204, 304})


class ProtocolError(Exception):
    """What came is no HTTP/1.1 response."""


class ResponseReader:
    """Takes bytes by `feed` until `done`. `reusable` tells whether the connection is at the start of the next response."""

    __slots__ = ("_buffer", "_chunk", "_chunked", "_left", "_spent", "body", "done", "headers", "reusable", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.done = False
        self.reusable = False
        self._buffer = bytearray()
        self._chunked = False
        self._left: int | None = None  # of the body, where its length was told
        self._spent = 0  # bytes of heads, interim ones too, and of trailers
        self._chunk = -1  # left of the chunk under way; -1: its size comes next, -2: the trailers do

    @property
    def begun(self) -> bool:
        """Tells whether anything has come at all."""
        return self.status is not None or bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Takes what came.

        Raises:
            ProtocolError: the connection is of no more use.
        """
        self._buffer += data
        while not self.done:
            if self.status is None:
                if not self._read_head():
                    return
            elif self._chunked:
                if not self._read_chunk():
                    return
            else:
                self._read_plain()
                return

    def eof(self) -> None:
        """The other end has closed: the end of a body whose length was not told, and too early for any other.

        Raises:
            ProtocolError: the response is not whole.
        """
        if self.done:
            return
        if self.status is None or self._chunked or self._left is not None:
            raise ProtocolError("the connection was closed before the response was whole")
        self.done = True

    def _read_head(self) -> bool:
        end, skip = self._buffer.find(b"\r\n\r\n"), 4
        if end < 0:
            end, skip = self._buffer.find(b"\n\n"), 2
        if end < 0 or end > HEAD_LIMIT:
            if len(self._buffer) > HEAD_LIMIT:
                raise ProtocolError("the response's head is too long")
            return False
        first, *lines = self._buffer[:end].decode("latin-1").replace("\r\n", "\n").split("\n")
        del self._buffer[: end + skip]
        self._spend(end)
        version, _, rest = first.partition(" ")
        code = rest.partition(" ")[0]
        if not (
            version.startswith("HTTP/1.") and len(code) == 3 and code.isascii() and code.isdigit() and code >= "100"
        ):
            raise ProtocolError("the answer does not begin as HTTP/1.1 does")
        if 100 <= int(code) < 200:
            if int(code) == 101:
                raise ProtocolError("the receiver switched protocols unasked")
            return True  # an interim response; the real one follows
        self.headers = _fields(lines)
        self.status = int(code)
        self._frame(version)
        return True

    def _frame(self, version: str) -> None:
        """Finds out how the body ends, RFC 9112 section 6.3."""
        options = {option.strip() for option in self.headers.get("connection", "").lower().split(",")}
        self.reusable = "close" not in options and (version != "HTTP/1.0" or "keep-alive" in options)
        codings = self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        if self.status in _NO_BODY:
            self.done = True
        elif codings:
            self._chunked = codings.rpartition(",")[2].strip() == "chunked"
            self.reusable = self.reusable and self._chunked and length is None
        elif length is not None:
            lengths = {one.strip() for one in length.split(",")}
            told = lengths.pop()
            if lengths or not (told.isascii() and told.isdigit()) or len(told) > 18:
                raise ProtocolError("the response's length is not a number")
            self._left = int(told)
            self.done = self._left == 0
        else:
            self.reusable = False

    def _read_plain(self) -> None:
        """Takes a body whose length was told, or that ends with the connection."""
        room = BODY_LIMIT - len(self.body)
        if self._left is None:
            self.body += self._buffer[:room]
            self._buffer.clear()
            self.done = len(self.body) >= BODY_LIMIT
            return
        taken = min(self._left, room, len(self._buffer))
        self.body += self._buffer[:taken]
        del self._buffer[:taken]
        self._left -= taken
        if self._left == 0:
            self._end(whole=True)
        elif len(self.body) >= BODY_LIMIT:
            self._end(whole=False)

    def _read_chunk(self) -> bool:
        """One step through a chunked body; False where more bytes are needed."""
        if self._chunk > 0:
            taken = min(self._chunk, BODY_LIMIT - len(self.body), len(self._buffer))
            self.body += self._buffer[:taken]
            del self._buffer[:taken]
            self._chunk -= taken
            if len(self.body) >= BODY_LIMIT:
                self._end(whole=False)
                return True
            if self._chunk == 0:
                self._chunk = -3
            return taken > 0
        line_end = self._buffer.find(b"\n")
        if line_end < 0:
            if len(self._buffer) > _LINE_LIMIT:
                raise ProtocolError("a line of the chunked body is too long")
            return False
        line = bytes(self._buffer[:line_end]).rstrip(b"\r")
        del self._buffer[: line_end + 1]
        self._take_line(line)
        return True

    def _take_line(self, line: bytes) -> None:
        if self._chunk == -3:  # the line end after a chunk's bytes
            if line:
                raise ProtocolError("a chunk is longer than it said")
            self._chunk = -1
        elif self._chunk == -2:
            if not line:
                self._end(whole=True)
            self._spend(len(line))
        else:
            size = line.partition(b";")[0].strip()
            try:
                self._chunk = int(size, 16) if 0 < len(size) <= 16 and size.isalnum() else -1
            except ValueError:
                self._chunk = -1
            if self._chunk < 0:
                raise ProtocolError("the size of a chunk is not a number")
            if self._chunk == 0:
                self._chunk = -2

    def _spend(self, count: int) -> None:
        """Bounds what may come without end beside a body: interim responses and trailers."""
        self._spent += count
        if self._spent > HEAD_LIMIT:
            raise ProtocolError("the response's heads and trailers are too long")

    def _end(self, *, whole: bool) -> None:
        self.done = True
        self.reusable = self.reusable and whole and not self._buffer


def _fields(lines: list[str]) -> dict[str, str]:
    """Names in lower case; what comes twice is joined by commas, as RFC 9110 5.3 allows."""
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ProtocolError("a header of the response cannot be read")
        name, value = name.lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
