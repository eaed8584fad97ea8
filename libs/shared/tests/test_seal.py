"""Sealed secrets: they open for their own record only, and outlive a rotation of keys."""

import pytest

from kalends_shared.seal import Keyring, SealError

OLD, NEW = Keyring.generate(), Keyring.generate()


def test_what_is_sealed_opens_again_and_never_looks_the_same() -> None:
    ring = Keyring.parse(OLD)
    one, two = ring.seal(b"whsec_x", "acc_1|whk_1|1"), ring.seal(b"whsec_x", "acc_1|whk_1|1")
    assert ring.open(one, "acc_1|whk_1|1") == ring.open(two, "acc_1|whk_1|1") == b"whsec_x"
    assert one != two
    assert b"whsec_x" not in one


@pytest.mark.parametrize("other", ["acc_2|whk_1|1", "acc_1|whk_2|1", "acc_1|whk_1|2"])
def test_it_does_not_open_for_another_tenant_record_or_version(other: str) -> None:
    ring = Keyring.parse(OLD)
    with pytest.raises(SealError):
        ring.open(ring.seal(b"x", "acc_1|whk_1|1"), other)


def test_no_changed_byte_passes() -> None:
    ring = Keyring.parse(OLD)
    stored = ring.seal(b"secret", "a")
    for i in range(len(stored)):
        with pytest.raises(SealError):
            ring.open(stored[:i] + bytes([stored[i] ^ 1]) + stored[i + 1 :], "a")


def test_rotation_wraps_anew_and_lets_the_old_key_go() -> None:
    stored = Keyring.parse(f"old:{OLD}").seal(b"secret", "a")
    both = Keyring.parse(f"new:{NEW},old:{OLD}")
    assert both.open(stored, "a") == b"secret"
    moved = both.rewrap(stored, "a")
    assert both.rewrap(moved, "a") == moved
    only = Keyring.parse(f"new:{NEW}")
    assert only.open(moved, "a") == b"secret"
    with pytest.raises(SealError, match="old"):
        only.open(stored, "a")


@pytest.mark.parametrize("text", ["", " , ", "short", "a:AAAA", "x" * 44])
def test_a_key_that_is_none_is_told(text: str) -> None:
    with pytest.raises(SealError):
        Keyring.parse(text)
