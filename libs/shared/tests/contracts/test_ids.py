import uuid

import pytest

from kalends_shared.contracts import ids


def test_ids_sort_by_time_and_have_their_form(monkeypatch: pytest.MonkeyPatch):
    """Also of times within one millisecond, up to the next."""
    moments = [1_775_035_800_123_000_000 + 250 * n for n in range(4_001)]
    clock = iter(moments)
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(clock))
    made = [ids.new_id("bkg") for _ in moments]
    assert made == sorted(set(made))
    assert all(ids.valid(one, "bkg") and len(one) == 30 for one in made)


def test_ids_of_one_moment_differ_and_are_uuids_of_version_7(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_775_035_800_123_999_999)
    made = {ids.new_id("bkg") for _ in range(3)}
    assert len(made) == 3
    for one in made:
        number = uuid.UUID(
            int=sum("0123456789abcdefghjkmnpqrstvwxyz".index(c) << 5 * n for n, c in enumerate(one[:3:-1]))
        )
        assert (number.version, number.variant) == (7, uuid.RFC_4122)
        assert number.int >> 80 == 1_775_035_800_123


def test_the_ends_of_the_alphabet():
    assert ids.encode(0) == "0" * 26
    assert ids.encode(2**128 - 1) == "7" + "z" * 25


def test_what_is_no_id():
    for text in (
        "",
        "bkg_",
        "bkg_0",
        "evt_01jv0000000000000000000000",
        "bkg_81jv0000000000000000000000",
        "bkg_01jv000000000000000000000u",
    ):
        assert not ids.valid(text, "bkg")


def test_a_derived_id_is_the_same_each_time_and_differs_by_its_parts():
    assert ids.derived("msg", "a", "b") == ids.derived("msg", "a", "b")
    assert ids.valid(ids.derived("msg", "a", "b"), "msg")
    assert ids.derived("msg", "a", "b") != ids.derived("msg", "ab", "")
