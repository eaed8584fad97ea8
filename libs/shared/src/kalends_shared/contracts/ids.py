"""TypeIDs: a prefix, an underscore, and a UUIDv7 in 26 characters of Crockford's base 32, as github.com/jetify-com/typeid describes."""

import secrets
import time
from hashlib import blake2b
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_SUFFIX_LENGTH: Final = 26


def new_id(prefix: str) -> str:
    """Makes an id that sorts by its time of making, to a quarter of a microsecond.

    The 12 bits after the version are the part of the millisecond (RFC 9562, 6.2, method 3): lists go by ids, and what one
    client makes one after the other is to stand in that order, however quick the machine.
    """
    millisecond, rest = divmod(time.time_ns(), 1_000_000)
    part = (rest << 12) // 1_000_000
    return f"{prefix}_{encode(millisecond << 80 | 0x7 << 76 | part << 64 | 0b10 << 62 | secrets.randbits(62))}"


def encode(number: int) -> str:
    """128 bits as 26 characters, the most significant first."""
    return "".join([_PAIRS[number >> shift & 0x3FF] for shift in range(120, -1, -10)])


def valid(text: str, prefix: str) -> bool:
    """Tells whether the text has the form of an id of that kind; whether such a thing exists is another question."""
    head, _, suffix = text.rpartition("_")
    return head == prefix and len(suffix) == _SUFFIX_LENGTH and suffix[0] <= "7" and all(c in _VALUES for c in suffix)


def derived(prefix: str, *parts: str) -> str:
    """Makes the one id that belongs to these parts, so that making it again makes no second thing."""
    digest = blake2b("\x1f".join(parts).encode(), digest_size=16).digest()
    return f"{prefix}_{encode(int.from_bytes(digest) >> 1)}"
