import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalends_shared.contracts import jsjson

# What `node -e 'console.log(JSON.stringify(x))'` (v20) prints for each.
PRINTED = {
    "5.0": "5",
    "1e21": "1e+21",
    "1e-7": "1e-7",
    "0.000001": "0.000001",
    "123456789012345680000": "123456789012345680000",
    "-0.5": "-0.5",
    "1.5e300": "1.5e+300",
    "12345.678": "12345.678",
    "9007199254740993": "9007199254740992",
    "-0.0": "0",
    "5e-324": "5e-324",
    "1e20": "100000000000000000000",
    "1.23e-18": "1.23e-18",
}


@pytest.mark.parametrize("text", PRINTED)
def test_numbers_go_out_as_javascript_writes_them(text: str):
    assert jsjson.canonical(json.loads(text)).decode() == PRINTED[text]


def test_integer_like_keys_come_first_and_ascend():
    value = {"b": 1, "10": 2, "a": 3, "9": 4, "01": 5, "4294967295": 6}
    assert jsjson.canonical(value) == b'{"9":4,"10":2,"b":1,"a":3,"01":5,"4294967295":6}'


def test_only_the_needed_escapes_are_written():
    assert jsjson.canonical('"\\/\b\f\n\r\t\x1f\x7f\u2028é') == '"\\"\\\\/\\b\\f\\n\\r\\t\\u001f\x7f\u2028é"'.encode()


@pytest.mark.parametrize("value", [math.inf, math.nan, 10**400, "\ud800", {"\udfff": 1}])
def test_what_json_cannot_carry_is_refused(value: object):
    with pytest.raises(ValueError):
        jsjson.canonical(value)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(ANY_JSON)
def test_writing_what_was_read_again_changes_nothing(value: object):
    once = jsjson.canonical(value)
    # JavaScript has doubles only, so the second reading takes every number as one.
    assert jsjson.canonical(json.loads(once, parse_int=float)) == once
