"""Encoding and decoding of JSON with a limit on its nesting."""

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
"""Maximum nesting depth of objects and arrays."""

_DIGITS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_LONG: Final = b"0" * 19  # orjson converts integers beyond 64 bits to float
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")  # one half of a pair of surrogates
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def _fast() -> ModuleType | None:
    """Return orjson, the faster parser, if it is installed."""
    try:
        return importlib.import_module("orjson")
    except ImportError:
        return None


def encode(value: object) -> bytes:
    """Encode a value as standard JSON in UTF-8; NaN and infinity are rejected.

    Raises:
        OffloadError: JSON cannot represent the value, or it is nested too deeply.
    """
    try:
        data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OffloadError(f"the value cannot be encoded as JSON: {error}") from error
    if _depth(data) > MAX_DEPTH:
        raise OffloadError(f"the value is nested deeper than {MAX_DEPTH} levels, which is the limit")
    return data


def decode(data: bytes) -> Any:
    """Decode a value from JSON.

    Raises:
        DamagedValueError: The data are not valid JSON in UTF-8, are nested too deeply, or contain NaN, infinity or a
            lone surrogate.
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
        raise DamagedValueError(f"the content is not valid JSON: {error}") from error
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _depth(data: bytes) -> int:
    """Return the nesting depth of brackets, without those in strings: every second piece between quotes."""
    pieces = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    brackets = b"".join(pieces[::2]).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
