"""Policies of browser forms."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone
from typing import Any

from aioimageattach.stores.s3._signing.policy import encode_policy

NOW = datetime(2026, 11, 20, 21, 30, 5, tzinfo=timezone(timedelta(hours=9)))


def decoded(*arguments: Any) -> Any:
    return json.loads(base64.b64decode(encode_policy("bucket", *arguments)))


def test_fields_must_be_unchanged() -> None:
    """A policy requires the fields and the bucket unchanged, until a time in UTC."""
    assert decoded({"key": "é", "acl": "private"}, [], NOW, 600) == {
        "expiration": "2026-11-20T12:40:05Z",
        "conditions": [{"bucket": "bucket"}, {"key": "é"}, {"acl": "private"}],
    }


def test_a_condition_replaces_the_exact_field() -> None:
    """A field that a condition names need not be sent unchanged."""
    conditions = [["starts-with", "$content-type", "image/"], {"ACL": "public-read"}, ["content-length-range", 1, 2]]
    fields = {"key": "key", "Content-Type": "image/png", "acl": "private", "tag": "a"}
    assert decoded(fields, conditions, NOW, 1)["conditions"] == [
        {"bucket": "bucket"},
        {"key": "key"},
        {"tag": "a"},
        *conditions,
    ]


def test_a_key_may_end_in_the_name_of_the_file() -> None:
    """S3 replaces ``${filename}`` only at the end of a key."""
    assert decoded({"key": "a/${filename}"}, [], NOW, 1)["conditions"][1] == ["starts-with", "$key", "a/"]
    assert decoded({"key": "${filename}/a"}, [], NOW, 1)["conditions"][1] == {"key": "${filename}/a"}
