"""Headers that ask a server to encrypt."""

from __future__ import annotations

import base64
import hashlib

import pytest

from aioimageattach.stores.s3 import Encryption

PREFIX = "x-amz-server-side-encryption"
KEY = bytes(range(32))


def test_keys_of_s3() -> None:
    """One header, and none to read."""
    assert (Encryption.s3().write, Encryption.s3().read) == ({PREFIX: "AES256"}, {})


def test_keys_of_kms() -> None:
    """Amazon's own key or a named one, with a key of the bucket's or without."""
    assert Encryption.kms().write == {PREFIX: "aws:kms"}
    assert Encryption.kms("alias/x", bucket_key=True).write == {
        PREFIX: "aws:kms",
        f"{PREFIX}-aws-kms-key-id": "alias/x",
        f"{PREFIX}-bucket-key-enabled": "true",
    }
    assert Encryption.kms().read == {}


def test_keys_of_ones_own() -> None:
    """They go with each request, and under other names with a copy; no repr shows them."""
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
    """AES-256 wants 32 bytes."""
    with pytest.raises(ValueError, match="32 bytes"):
        Encryption.customer(bytes(size))
