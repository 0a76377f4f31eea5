"""JSON with limits, and with the same results from both parsers."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach.exc import DamagedValueError, OffloadError
from aioimageattach.offload import _jsontext as jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(params=["orjson", "json"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two parsers."""
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)
    return str(request.param)


@given(value=VALUES)
def test_values_are_restored(value: Any) -> None:
    """Values are preserved, including integers of any size."""
    data = jsontext.encode(value)
    assert jsontext.decode(data) == value
    assert json.loads(data) == value


@pytest.mark.parametrize("number", [2**63 - 1, 2**64, -(2**70), 10**300])
def test_integers_stay_integers(parser: str, number: int) -> None:
    """Large integers stay integers, which one of the parsers would convert to floats."""
    found = jsontext.decode(jsontext.encode([number]))[0]
    assert (type(found), found) == (int, number)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), object(), {1, 2}, b"bytes", "\ud800", {(1, 2): 3}, [[[]]] * 2 + [json]],
    ids=["nan", "inf", "object", "set", "bytes", "half a pair", "a key", "a module"],
)
def test_other_values_are_refused(value: Any) -> None:
    """Values that JSON cannot represent are rejected before they are written."""
    with pytest.raises(OffloadError, match="cannot be encoded as JSON"):
        jsontext.encode(value)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


TEXTS = st.text(alphabet='"\\[]{}u\n', max_size=8)


@given(value=st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=10))
def test_the_nesting_depth(value: Any) -> None:
    """Brackets, quotes and backslashes in strings do not count."""
    assert jsontext._depth(jsontext.encode(value)) == depth_of(value)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_the_maximum_nesting() -> None:
    """Deeper nesting is rejected with both parsers, and brackets in strings do not count."""
    assert jsontext.decode(jsontext.encode(nested(jsontext.MAX_DEPTH))) == nested(jsontext.MAX_DEPTH)
    with pytest.raises(OffloadError, match="nested deeper"):
        jsontext.encode(nested(jsontext.MAX_DEPTH + 1))
    with pytest.raises(OffloadError, match="cannot be encoded as JSON"):
        jsontext.encode(nested(100_000))
    with pytest.raises(DamagedValueError, match="nested deeper"):
        jsontext.decode(b"[" * 100_000 + b"]" * 100_000)
    text = '"[{\\"' * 1000
    assert jsontext.decode(jsontext.encode([text])) == [text]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b"1" * 5000,
        b"[1,]",
        b"'x'",
        b'"' + b'\\"' * 100_000,
        b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        "[1]".encode("utf-16"),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_hostile_json(parser: str, data: bytes) -> None:
    """Invalid JSON raises one error with both parsers; a pickle is not JSON."""
    with pytest.raises(DamagedValueError):
        jsontext.decode(data)


def test_names_have_no_special_meaning(parser: str) -> None:
    """No name has a special meaning, and of duplicate keys the last one counts."""
    data = b'{"__class__": "os.system", "a": 1, "a": 2, "s": "\\ud83d\\ude00"}'
    assert jsontext.decode(data) == {"__class__": "os.system", "a": 2, "s": "\U0001f600"}
