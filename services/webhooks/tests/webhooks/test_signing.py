import hashlib
import hmac
import json
import time
from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks.webhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook
from svix.webhooks import WebhookVerificationError

from kalends_webhooks.delivery.targets import ed25519
from kalends_webhooks.domain import signing
from kalends_webhooks.domain.signing import Brand
from kalends_webhooks.domain.subscription import make_secret

BODY = '{"a":"“é”"}'.encode()
AT = 1_775_811_600
BRAND = Brand()


def hexed(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def made(signature: str, *secrets: str, brand: Brand = BRAND) -> dict[str, str]:
    return signing.headers(signature, brand, [signing.key(secret, ed25519) for secret in secrets], "msg_1", AT, BODY)


def test_what_every_delivery_carries():
    secret = make_secret()
    headers = made("kalends", secret)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", str(AT))
    key = signing.standard_key(secret)
    assert key is not None
    assert len(key) == 32
    want = b64encode(hmac.new(key, b"msg_1.%d.%b" % (AT, BODY), hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{want}"


def test_the_libraries_that_receivers_use_take_it():
    old, new = make_secret(), make_secret()
    now = int(time.time())
    headers = signing.headers("kalends", BRAND, [signing.key(new), signing.key(old)], "msg_1", now, BODY)
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
        SvixWebhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        SvixWebhook(make_secret()).verify(BODY, headers)


@pytest.mark.parametrize(
    ("signature", "header", "signed", "prefix"),
    [
        ("timestamped", "Kalends-Signature", b"%d.%b" % (AT, BODY), ""),
        ("sha256-prefixed", "X-Kalends-Signature", BODY, "sha256="),
        ("hex", "X-Kalends-Signature", BODY, ""),
        ("sha256-bare", "X-Kalends-Signature-256", BODY, ""),
    ],
)
def test_schemes_without_room_sign_with_the_oldest_secret(signature: str, header: str, signed: bytes, prefix: str):
    new, old = make_secret(), make_secret()
    headers = made(signature, new, old)
    assert headers[header] == prefix + hexed(old, signed)
    assert headers.get("Kalends-Timestamp") == (str(AT) if signature == "timestamped" else None)


def test_the_kalends_scheme_has_room_for_all():
    new, old = make_secret(), make_secret()
    signed = b"%d.%b" % (AT, BODY)
    assert made("kalends", new, old)["Kalends-Signature"] == f"t={AT},v1={hexed(new, signed)},v1={hexed(old, signed)}"


def test_the_key_is_the_secret_as_shown_prefix_included():
    assert signing.key("whsec_AAAA").shown == b"whsec_AAAA"
    assert signing.key("whsec_AAAA").standard == b"\0\0\0"
    assert signing.key("my own words").standard == b"my own words"


def test_a_deployment_names_its_headers():
    brand = Brand(signature="Acme-Sig", x_signature_256="X-Cal-Signature-256")
    assert "Acme-Sig" in made("kalends", "s", brand=brand)
    assert "X-Cal-Signature-256" in made("sha256-bare", "s", brand=brand)


def test_an_ed25519_key_signs_so_that_its_public_half_verifies():
    private = Ed25519PrivateKey.generate()
    seed, public = private.private_bytes_raw(), private.public_key()
    for raw in (seed, seed + public.public_bytes_raw()):
        secret = "whsk_" + b64encode(raw).decode()
        version, _, signature = made("kalends", secret)["webhook-signature"].partition(",")
        assert version == "v1a"
        public.verify(b64decode(signature), b"msg_1.%d.%b" % (AT, BODY))
        assert signing.readable(secret)
    old = make_secret()
    both = made("kalends", "whsk_" + b64encode(seed).decode(), old)["webhook-signature"].split()
    assert [one.partition(",")[0] for one in both] == ["v1a", "v1"]
    assert not signing.readable("whsk_" + b64encode(seed[:16]).decode())
    assert not signing.readable("whsk_%")
