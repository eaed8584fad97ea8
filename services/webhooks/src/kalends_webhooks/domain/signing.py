"""Signatures: Standard Webhooks on every delivery, and beside it that of the subscription's profile.

The HMAC key is the secret's UTF-8 bytes as it is shown, prefix included; Standard Webhooks alone takes what follows
`whsec_` as base64 (github.com/standard-webhooks/standard-webhooks). A secret that its owner supplies as `whsk_` and the
base64 of an ed25519 private key signs the Standard Webhooks header by that key (`v1a`), so that whoever verifies need
hold no secret.
"""

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

WHSEC: Final = "whsec_"
WHSK: Final = "whsk_"
_SEED: Final = 32

Signer = Callable[[bytes], Callable[[bytes], bytes]]


class Brand(Struct, frozen=True):
    """The names of a deployment's headers, so that a receiver written for another engine works unchanged."""

    signature: str = "Kalends-Signature"
    timestamp: str = "Kalends-Timestamp"
    x_signature: str = "X-Kalends-Signature"
    x_signature_256: str = "X-Kalends-Signature-256"
    user_agent: str = "Kalends-Webhooks/1"


class Key(Struct, frozen=True):
    """A live secret in the forms in which it keys a signature; `sign` signs by it where it is an ed25519 key."""

    shown: bytes
    standard: bytes
    sign: Callable[[bytes], bytes] | None = None


def key(secret: str, ed25519: Signer | None = None) -> Key:
    """The key of a secret; `ed25519` makes of a private key what signs by it."""
    shown, seed = secret.encode(), private_seed(secret)
    return Key(
        shown, standard_key(secret) or shown, ed25519(seed) if seed is not None and ed25519 is not None else None
    )


def private_seed(secret: str) -> bytes | None:
    """The seed behind `whsk_` and base64, where the public key may follow it; None where the secret is not written so."""
    raw = _after(WHSK, secret)
    return raw[:_SEED] if raw is not None and len(raw) in {_SEED, 2 * _SEED} else None


def readable(secret: str) -> bool:
    """Tells whether a supplied secret is what its prefix says; one without a prefix may be any text."""
    if secret.startswith(WHSEC):
        return standard_key(secret) is not None
    return not secret.startswith(WHSK) or private_seed(secret) is not None


def standard_key(secret: str) -> bytes | None:
    """The bytes behind `whsec_` and base64; None where the secret is not written so."""
    return _after(WHSEC, secret)


def _after(prefix: str, secret: str) -> bytes | None:
    if not secret.startswith(prefix):
        return None
    try:
        return b64decode(secret.removeprefix(prefix), validate=True) or None
    except (Base64Error, ValueError):
        return None


def headers(
    signature: str, brand: Brand, keys: Sequence[Key], event_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers that sign one attempt. `keys` are the live secrets, the newest first.

    A scheme with room for one signs with the oldest, which is what a receiver has that does not know the new one yet.
    """
    made = {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": standard(keys, event_id, timestamp, body),
    }
    oldest = keys[-1].shown
    match signature:
        case "kalends":
            signed = b"%d.%b" % (timestamp, body)
            made[brand.signature] = f"t={timestamp}," + ",".join(f"v1={_hex(key.shown, signed)}" for key in keys)
        case "timestamped":
            made[brand.signature] = _hex(oldest, b"%d.%b" % (timestamp, body))
            made[brand.timestamp] = str(timestamp)
        case "sha256-prefixed":
            made[brand.x_signature] = f"sha256={_hex(oldest, body)}"
        case "hex":
            made[brand.x_signature] = _hex(oldest, body)
        case "sha256-bare":
            made[brand.x_signature_256] = _hex(oldest, body)
    return made


def standard(keys: Sequence[Key], event_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64>` (`v1a,` by an ed25519 key) of "{id}.{timestamp}.{body}" for each live secret, with spaces between."""
    signed = b"%b.%d.%b" % (event_id.encode(), timestamp, body)
    return " ".join([_standard(key, signed) for key in keys])


def _standard(key: Key, signed: bytes) -> str:
    if key.sign is not None:
        return "v1a," + b64encode(key.sign(signed)).decode()
    return "v1," + b64encode(hmac.digest(key.standard, signed, "sha256")).decode()


def _hex(key: bytes, signed: bytes) -> str:
    return hmac.digest(key, signed, "sha256").hex()
