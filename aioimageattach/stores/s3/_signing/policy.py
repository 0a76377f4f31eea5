"""Policies of browser forms: signed documents that define which uploads a form permits."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

__all__ = ["Condition", "encode_policy"]

Condition: TypeAlias = Mapping[str, str] | Sequence[str | int]
"""``{"name": "exactly"}``, ``["starts-with", "$name", "prefix"]`` or ``["content-length-range", least, most]``."""

_FILENAME: Final = "${filename}"


def _names(conditions: Sequence[Condition]) -> set[str]:
    names: set[str] = set()
    for condition in conditions:
        if isinstance(condition, Mapping):
            names.update(name.lower() for name in condition)
        elif isinstance(condition[1], str):
            names.add(condition[1].removeprefix("$").lower())
    return names


def encode_policy(
    bucket: str, fields: Mapping[str, str], conditions: Sequence[Condition], now: datetime, expires_in: int
) -> str:
    """Return the policy document of a form, in base64.

    Each field must be sent unchanged, unless a condition names it; then only the conditions restrict its value. A key
    that ends in ``${filename}`` may have any ending.
    """
    ends = (now.astimezone(UTC) + timedelta(seconds=expires_in)).strftime("%Y-%m-%dT%H:%M:%SZ")
    named = _names(conditions)
    all_conditions: list[Condition] = [{"bucket": bucket}]
    for name, value in fields.items():
        if name.lower() in named:
            continue
        if name == "key" and value.endswith(_FILENAME):
            all_conditions.append(["starts-with", "$key", value.removesuffix(_FILENAME)])
        else:
            all_conditions.append({name: value})
    document = {"expiration": ends, "conditions": [*all_conditions, *conditions]}
    return base64.b64encode(json.dumps(document).encode()).decode()
