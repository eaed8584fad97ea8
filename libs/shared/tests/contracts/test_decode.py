import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from kalends_shared.contracts import availability, booking, decode
from kalends_shared.contracts.errors import FieldError, KalendsError, invalid, invalid_fields
from kalends_shared.contracts.types import EMPTY, Instant, Json, Name, Zone


class Inner(Struct, kw_only=True):
    key: Name
    n: Annotated[int, Meta(ge=1, le=5)] = 1


class Thing(Struct, kw_only=True):
    name: Name
    zone: Zone | None = None
    kinds: list[Literal["a", "b"]] = []
    inner: list[Inner] = []
    window: int | None = 60
    metadata: Json = EMPTY


class Asked(Struct, kw_only=True):
    at: Instant | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 25
    status: Annotated[list[Literal["a", "b"]], Meta(max_length=3)] | None = None
    upcoming: bool | None = None


def wrong(raw: bytes, kind: type[Struct] = Thing) -> dict[str, str]:
    with pytest.raises(KalendsError) as caught:
        decode.decode(raw, kind)
    assert caught.value.code == "validation_failed"
    return {e.pointer: e.code for e in caught.value.fields}


def test_text_is_trimmed_and_defaults_are_filled():
    assert decode.decode(b'{"name": "  Main  Shop \\n"}', Thing) == Thing(name="Main  Shop")


def test_every_error_is_told_at_once_with_its_pointer():
    body = b'{"zone": "Mars", "kinds": ["c"], "inner": [{"n": 9}], "nonsense": 1, "a/b": 2}'
    assert wrong(body) == {
        "#/zone": "invalid",
        "#/kinds/0": "invalid_choice",
        "#/inner/0/n": "too_large",
        "#/inner/0/key": "required",
        "#/nonsense": "unknown_field",
        "#/a~1b": "unknown_field",
        "#/name": "required",
    }


def test_the_detail_of_a_refusal_names_its_first_field():
    assert (
        invalid("?cursor", "invalid", "is not a cursor of this list").detail == "?cursor is not a cursor of this list."
    )
    both = (FieldError("#/name", "required", "is required"), FieldError("#/zone", "invalid", "is no zone"))
    assert (invalid_fields(both).detail, invalid_fields(both).fields) == ("#/name is required.", both)


def test_a_missing_body_is_an_empty_one():
    assert wrong(b"  ") == {"#/name": "required"}


@pytest.mark.parametrize(
    "raw",
    [b'{"a": ', b'{"name": "\xff"}', b'{"metadata": {"a": NaN}}', b"[" * 20_000, b'{"name": "\\ud800"}'],
)
def test_what_cannot_be_parsed_is_malformed(raw: bytes):
    with pytest.raises(KalendsError) as caught:
        decode.decode(raw, Thing)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("value", [{"no": 1}, [1], 5, True])
def test_a_wrong_type_is_at_its_pointer(value: Any):
    assert wrong(msgspec.json.encode({"name": value})) == {"#/name": "type"}


def test_a_nul_character_is_refused_anywhere():
    assert wrong(b'{"name": "a\\u0000b"}') == {"#/name": "invalid"}
    assert wrong(b'{"name": "a", "metadata": {"k": "\\u0000"}}') == {"#/metadata": "invalid"}


def test_null_is_a_value_where_the_field_may_be_null_and_the_default_elsewhere():
    made = decode.decode(b'{"name": "x", "window": null, "kinds": null}', Thing)
    assert (made.window, made.kinds) == (None, [])


def test_metadata_is_kept_as_javascript_writes_it():
    made = decode.decode(b'{"name": "x", "metadata": {"b": 5.0, "2": 1e21, "1": 0.0000001}}', Thing)
    assert bytes(made.metadata) == b'{"1":1e-7,"2":1e+21,"b":5}'


@pytest.mark.parametrize(
    ("metadata", "pointer"),
    [
        ({f"k{i}": 1 for i in range(51)}, "#/metadata"),
        ({"k" * 41: 1}, "#/metadata/" + "k" * 41),
        ({"": 1}, "#/metadata/"),
        ({"k": "v" * 501}, "#/metadata/k"),
        ({"k": ["v" * 497]}, "#/metadata/k"),
        ([1], "#/metadata"),
    ],
)
def test_metadata_has_bounds(metadata: Any, pointer: str):
    assert pointer in wrong(msgspec.json.encode({"name": "x", "metadata": metadata}))


def test_a_merge_patch_merges_metadata_and_unsets_with_null():
    current = Thing(name="x", zone="UTC", metadata=msgspec.Raw(b'{"a":{"x":1,"y":2},"b":1}'))
    made = decode.patch(b'{"zone": null, "metadata": {"a": {"x": null}, "b": null, "c": 3}}', current)
    assert (made.name, made.zone, bytes(made.metadata)) == ("x", None, b'{"a":{"y":2},"c":3}')


def test_a_patch_is_held_to_the_same_rules():
    with pytest.raises(KalendsError) as caught:
        decode.patch(b'{"name": null, "kinds": {"a": 1}}', Thing(name="x"))
    assert {e.pointer for e in caught.value.fields} == {"#/name", "#/kinds"}


def test_queries_are_read_from_text():
    made = decode.query("at=2026-04-10T09:00:00+02:00&limit=5&status=a,b&upcoming=true", Asked)
    assert made == Asked(at=dt.datetime(2026, 4, 10, 7, tzinfo=dt.UTC), limit=5, status=["a", "b"], upcoming=True)
    assert decode.query("at=2026-04-10T09:00:00%2B02:00", Asked).at == made.at


def test_a_parameter_that_comes_again_makes_a_list_or_is_refused():
    """None of them is dropped in silence: some clients write lists so."""
    assert decode.query("status=a&status=b", Asked).status == ["a", "b"]
    with pytest.raises(KalendsError) as caught:
        decode.query("limit=5&limit=6", Asked)
    assert [e.pointer for e in caught.value.fields] == ["?limit"]


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=x", "?limit"),
        ("limit=1.5", "?limit"),
        ("at=soon", "?at"),
        ("status=a,c", "?status"),
        ("status=a,b,a,b", "?status"),
        ("upcoming=maybe", "?upcoming"),
        ("nonsense=1", "?nonsense"),
    ],
)
def test_a_bad_parameter_is_at_its_name(text: str, pointer: str):
    with pytest.raises(KalendsError) as caught:
        decode.query(text, Asked)
    assert [e.pointer for e in caught.value.fields] == [pointer]


@pytest.mark.parametrize(
    "text",
    [
        "2026-04-10T09:00:00",
        "2026-02-30T09:00:00Z",
        "2026-04-10",
        "2026-04-10T09:00:00+25:00",
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_an_instant_needs_an_offset_and_must_exist(text: str):
    with pytest.raises(KalendsError):
        decode.query(f"at={text.replace('+', '%2B')}", Asked)


@pytest.mark.parametrize("kind", [booking.BookingIn, booking.HoldIn, booking.RescheduleIn])
def test_a_start_from_which_nothing_can_be_reckoned_is_too_far_away(kind: type[Struct]):
    filled = {"event_type_id": "evt_1", "booker_name": "Ada", "booker_email": "ada@example.test"}
    body = {name: filled[name] for name in kind.__struct_fields__ if name in filled}
    for year in ("9000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert wrong(msgspec.json.encode(body | {"start_at": year}), kind) == {"#/start_at": "invalid"}
    assert decode.decode(msgspec.json.encode(body | {"start_at": "8999-12-31T23:59:59Z"}), kind)


@pytest.mark.parametrize("template", ["javascript:{booking_id}", "{booking_id}", "room five", ""])
def test_a_location_makes_links_that_can_be_followed(template: str):
    assert wrong(msgspec.json.encode({"name": "x", "url_template": template}), availability.LocationIn) == {
        "#/url_template": "invalid"
    }
    made = decode.decode(b'{"name": "x", "url_template": "https://meet.example/{booking_id}"}', availability.LocationIn)
    assert made.url_template == "https://meet.example/{booking_id}"


def test_a_guest_may_be_no_more_than_an_address():
    assert decode.decode(b'{"email": "bob@example.test"}', booking.Guest).name is None
    assert wrong(b'{"name": "Bob"}', booking.Guest) == {"#/email": "required"}


def test_rules_that_span_fields_have_pointers_too():
    body = {"name": "x", "timezone": "UTC", "weekly": [{"days": ["mon"], "start": "10:00", "end": "09:00"}]}
    assert wrong(msgspec.json.encode(body), availability.ScheduleIn) == {"#/weekly/0/end": "invalid"}
    body = {"title": "x", "duration_minutes": 30, "hosts": [{"host_id": "a"}, {"host_id": "a"}]}
    assert set(wrong(msgspec.json.encode(body), availability.EventTypeIn)) == {"#/hosts/1/host_id", "#/assignment"}
