"""Headers for server-side encryption."""

from __future__ import annotations

import base64
import hashlib

import pytest

from aioimageattach.stores.s3 import Encryption

PREFIX = "x-amz-server-side-encryption"
KEY = bytes(range(32))


def test_keys_of_s3() -> None:
    """SSE-S3 has one header for writing and none for reading."""
    assert (Encryption.s3().write, Encryption.s3().read) == ({PREFIX: "AES256"}, {})


def test_keys_of_kms() -> None:
    """SSE-KMS uses Amazon's key or a given one, with or without a bucket key."""
    assert Encryption.kms().write == {PREFIX: "aws:kms"}
    assert Encryption.kms("alias/x", bucket_key=True).write == {
        PREFIX: "aws:kms",
        f"{PREFIX}-aws-kms-key-id": "alias/x",
        f"{PREFIX}-bucket-key-enabled": "true",
    }
    assert Encryption.kms().read == {}


def test_customer_keys() -> None:
    """SSE-C sends the key with each request, under other names for a copy, and no repr reveals it."""
    encryption = Encryption.customer(KEY)
    assert encryption.write == encryption.read
    assert encryption.read == {
        f"{PREFIX}-customer-algorithm": "AES256",
        f"{PREFIX}-customer-key": base64.b64encode(KEY).decode(),
        f"{PREFIX}-customer-key-MD5": base64.b64encode(hashlib.md5(KEY).digest()).decode(),
    }
    assert sorted(encryption.copy_source) == sorted(
        name.replace("x-amz-", "x-amz-copy-source-") for name in encryption.read
    )
    assert base64.b64encode(KEY).decode() not in repr(encryption)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_keys_of_another_length(size: int) -> None:
    """A key for AES-256 must have 32 bytes."""
    with pytest.raises(ValueError, match="32 bytes"):
        Encryption.customer(bytes(size))
