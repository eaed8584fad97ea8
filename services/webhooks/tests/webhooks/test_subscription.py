from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kalends_shared.contracts.decode import decode
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.types import EMPTY
from kalends_shared.contracts.webhooks import WebhookFilters, WebhookIn
from kalends_webhooks.domain import subscription as rules
from kalends_webhooks.domain.facts import Traits
from kalends_webhooks.domain.signing import Brand
from kalends_webhooks.domain.subscription import Subscription, wants

NOW = datetime(2026, 4, 10, 9, tzinfo=UTC)


def subscription(**wanted: Any) -> Subscription:
    given = {"url": "https://example.test/hook", "events": ["*"], "profile": "kalends", **wanted}
    return Subscription(
        id="whk_1", tenant_id="acc_1-live", version=1, created_at=NOW, updated_at=NOW, wanted=WebhookIn(**given),
        disabled_reason=None, secret=b"", secret_hint="...abcd",
    )  # fmt: skip


def about(
    kind: str = "booking.confirmed",
    event_type: str | None = "evt_1",
    hosts: tuple[str, ...] = ("hst_1",),
    metadata: bytes = b"{}",
) -> Traits:
    return Traits(kind, event_type, hosts, msgspec.Raw(metadata))


def test_events_by_name_or_all():
    assert wants(subscription(events=["*"]), about())
    assert wants(subscription(events=["hold.expired", "booking.confirmed"]), about())
    assert not wants(subscription(events=["booking.created"]), about())


@pytest.mark.parametrize("profile", ["sha256-prefixed", "hex", "sha256-bare"])
def test_other_engines_hear_of_a_booking_once_it_is_confirmed(profile: str):
    other = subscription(profile=profile, events=["booking.created", "booking.pending"])
    assert wants(other, about("booking.confirmed"))
    assert wants(other, about("booking.pending"))
    assert not wants(other, about("booking.created"))
    assert not wants(subscription(profile=profile, events=["*"]), about("booking.created"))
    assert wants(subscription(profile=profile, payload="kalends"), about("booking.created"))


def test_filters():
    assert wants(subscription(filters=WebhookFilters(event_type_ids=["evt_1"])), about())
    assert not wants(subscription(filters=WebhookFilters(event_type_ids=["evt_2"])), about())
    assert not wants(subscription(filters=WebhookFilters(event_type_ids=["evt_2"])), about(event_type=None))
    assert wants(subscription(filters=WebhookFilters(host_ids=["hst_1", "hst_9"])), about(hosts=("hst_1", "hst_2")))
    assert not wants(subscription(filters=WebhookFilters(host_ids=["hst_9"])), about())
    gold = subscription(filters=WebhookFilters(metadata=msgspec.Raw(b'{"plan":"gold","n":{"a":1}}')))
    assert wants(gold, about(metadata=b'{"n":{"a":1},"x":2,"plan":"gold"}'))
    assert not wants(gold, about(metadata=b'{"plan":"gold"}'))
    assert not wants(gold, about(metadata=b'{"plan":"gold","n":{"a":1,"b":2}}'))


@pytest.mark.parametrize(
    ("asked", "have", "wanted"),
    [
        (b"true", b"true", True),
        (b"true", b"1", False),
        (b"0", b"false", False),
        (b"[1]", b"[true]", False),
        (b'{"a":{"x":1,"y":2}}', b'{"a":{"y":2,"x":1}}', True),
        (b"null", b"null", True),
        (b"1", b'"1"', False),
    ],
)
def test_metadata_is_compared_as_json(asked: bytes, have: bytes, wanted: bool):
    chooses = subscription(filters=WebhookFilters(metadata=msgspec.Raw(b'{"k":%b}' % asked)))
    assert wants(chooses, about(metadata=b'{"k":%b}' % have)) is wanted
    assert not wants(chooses, about(metadata=b"{}"))


@pytest.mark.parametrize(
    "headers",
    [
        b'{"Host":"x"}', b'{"content-type":"x"}', b'{"Webhook-Id":"x"}', b'{"kalends-signature":"x"}', b'{"X-Kalends-Signature":"x"}',
        b'{"a b":"x"}', b'{"a":"x\\ny"}', b'{"a":1}', b'{"":"x"}', b'{"Transfer-Encoding":"chunked"}', b'{"A":"1","a":"2"}',
        b'{"Acme-Sig":"x"}', b'{"a":"\xe2\x82\xac"}',
    ],
)  # fmt: skip
def test_headers_that_are_not_the_subscriptions_to_set(headers: bytes):
    with pytest.raises(KalendsError) as refused:
        rules.check(subscription(headers=msgspec.Raw(headers)).wanted, Brand(signature="Acme-Sig"))
    assert [field.pointer for field in refused.value.fields] == ["#/headers"]


def test_headers_of_its_own():
    rules.check(subscription(headers=msgspec.Raw(b'{"Authorization":"Bearer x","X-Tenant":"7"}')).wanted, Brand())


def test_a_supplied_secret_must_be_readable():
    rules.check(subscription(secret="anything at all").wanted, Brand())
    rules.check(subscription(secret=rules.make_secret()).wanted, Brand())
    with pytest.raises(KalendsError) as refused:
        rules.check(subscription(secret="whsec_%%%").wanted, Brand())
    assert refused.value.fields[0].pointer == "#/secret"


def test_hints_tell_little():
    assert rules.hint("whsec_0123456789abcdef") == "...cdef"
    assert rules.hint("short") == "..."


def test_defaults_come_from_the_profile():
    shown = rules.public(subscription(profile="sha256-bare"))
    assert (shown.signature, shown.payload) == ("sha256-bare", "trigger")
    assert shown.retry_schedule == [5, 30, 300, 1800, 7200, 21600, 43200]
    shown = rules.public(subscription(profile="hex", payload="kalends", retry_schedule=[]))
    assert (shown.signature, shown.payload, shown.retry_schedule, shown.secret) == ("hex", "kalends", [], None)


def test_a_subscription_survives_its_table():
    wanted = decode(
        b'{"url":"https://x.test/h","events":["*"],"headers":{"B":"1","2":"b"},"metadata":{"n":1e21},"retry_schedule":[1,2],'
        b'"filters":{"metadata":{"z":1,"1":2}}}',
        WebhookIn,
    )
    again = msgspec.json.decode(msgspec.json.encode(wanted), type=WebhookIn)
    assert msgspec.json.encode(again) == msgspec.json.encode(wanted)
    assert bytes(again.metadata) == b'{"n":1e+21}'
    assert again.filters.metadata != EMPTY
