"""JSON within limits: values in, bytes out, and back."""

from __future__ import annotations

import importlib
import json
import re
from itertools import accumulate
from types import ModuleType
from typing import Any, Final

from ..exc import DamagedValueError, OffloadError

__all__ = ["MAX_DEPTH", "decode", "encode"]

MAX_DEPTH: Final = 200
"""How deep objects and arrays may be nested."""

_DIGITS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_LONG: Final = b"0" * 19  # orjson makes floats of integers beyond 64 bits
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")  # one half of a pair of surrogates
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def _fast() -> ModuleType | None:
    """The quick parser, if it is there."""
    try:
        return importlib.import_module("orjson")
    except ImportError:
        return None


def encode(value: object) -> bytes:
    """Return a value as JSON in UTF-8: what every parser reads, so no NaN.

    Raises:
        OffloadError: It is nothing that JSON has, or nested too deep.
    """
    try:
        data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OffloadError(f"the value is no JSON: {error}") from error
    if _depth(data) > MAX_DEPTH:
        raise OffloadError(f"the value is nested deeper than {MAX_DEPTH} levels, which is the limit")
    return data


def decode(data: bytes) -> Any:
    """Return the value of some JSON.

    Raises:
        DamagedValueError: It is none in UTF-8, is nested too deep, or has numbers or characters that there are not.
    """
    if _depth(data) > MAX_DEPTH:
        raise DamagedValueError(f"the JSON is nested deeper than {MAX_DEPTH} levels, which is the limit")
    fast = None if _LONG in data.translate(_DIGITS) else _fast()
    try:
        if fast is not None:
            return fast.loads(data)
        value = json.loads(data.decode(), parse_constant=_refuse)
        if _HALF.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DamagedValueError(f"the value is no JSON: {error}") from error
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"there is no number {name}")


def _depth(data: bytes) -> int:
    """How deep brackets are nested, whatever stands in strings: those are every second piece between quotes."""
    pieces = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    brackets = b"".join(pieces[::2]).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
