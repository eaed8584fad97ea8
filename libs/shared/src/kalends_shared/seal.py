"""Secrets that must be read again (webhook secrets, calendar passwords), sealed for rest in a table.

Each record has a fresh 256-bit key, which seals it by AES-256-GCM and is itself wrapped by a key-encryption key whose id
stands beside it. What the record belongs to (`tenant|record|version`) is authenticated with it, so that a sealed value
moved to another row does not open. `rewrap` wraps the record's key anew and leaves the sealed text as it is.
"""

import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class SealError(Exception):
    """A key that is no key, a record sealed by a key that is not at hand, or one that is not what it says."""


class _Record(msgspec.Struct, array_like=True, frozen=True):
    form: int
    key_id: str
    wrapped: bytes
    sealed: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Record).decode


class Keyring:
    """The key-encryption keys at hand, the first for what is sealed from now on, the others for what was sealed before."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys:
            raise SealError("there is no key")
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Reads KALENDS_SECRET_KEY: base64 of 32 bytes, several by commas, newest first, each `id:` before it if it has a name.

        Raises:
            SealError: one is not 32 bytes in base64.
        """
        keys: dict[str, bytes] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key_id, _, encoded = part.rpartition(":")
            try:
                key = b64decode(encoded, validate=True)
            except (Base64Error, ValueError) as error:
                raise SealError("a secret key is not base64") from error
            if len(key) != KEY_BYTES:
                raise SealError(f"a secret key has {len(key)} bytes, not {KEY_BYTES}")
            keys[key_id or sha256(key).hexdigest()[:8]] = key
        return cls(keys)

    @staticmethod
    def generate() -> str:
        """A new key, as `parse` reads it."""
        return b64encode(secrets.token_bytes(KEY_BYTES)).decode()

    def seal(self, secret: bytes, belongs_to: str) -> bytes:
        """Seals for storing; `belongs_to` names the record, as `tenant|record|version`."""
        key = secrets.token_bytes(KEY_BYTES)
        return self._pack(key, _lock(AESGCM(key), secret, belongs_to), belongs_to)

    def open(self, stored: bytes, belongs_to: str) -> bytes:
        """Opens what `seal` made.

        Raises:
            SealError: it was sealed by a key that is not at hand, for another record, or was changed.
        """
        record = _read(stored)
        return _unlock(AESGCM(self._unwrap(record, belongs_to)), record.sealed, belongs_to)

    def rewrap(self, stored: bytes, belongs_to: str) -> bytes:
        """The same record under the current key; the same bytes where it is so already.

        Raises:
            SealError: as `open`.
        """
        record = _read(stored)
        if record.key_id == self.current:
            return stored
        return self._pack(self._unwrap(record, belongs_to), record.sealed, belongs_to)

    def _pack(self, key: bytes, sealed: bytes, belongs_to: str) -> bytes:
        return _encode(
            _Record(1, self.current, _lock(self._keys[self.current], key, f"{self.current}|{belongs_to}"), sealed)
        )

    def _unwrap(self, record: _Record, belongs_to: str) -> bytes:
        wrapping = self._keys.get(record.key_id)
        if wrapping is None:
            raise SealError(f"sealed by key {record.key_id}, which is not at hand")
        return _unlock(wrapping, record.wrapped, f"{record.key_id}|{belongs_to}")


def _read(stored: bytes) -> _Record:
    try:
        record = _decode(stored)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SealError("no sealed record") from error
    if record.form != 1:
        raise SealError(f"sealed in form {record.form}, which is newer than this program")
    return record


def _lock(cipher: AESGCM, text: bytes, belongs_to: str) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, text, belongs_to.encode())


def _unlock(cipher: AESGCM, locked: bytes, belongs_to: str) -> bytes:
    try:
        return cipher.decrypt(locked[:NONCE_BYTES], locked[NONCE_BYTES:], belongs_to.encode())
    except (InvalidTag, ValueError) as error:
        raise SealError("a sealed record belongs to something else, or was changed") from error
