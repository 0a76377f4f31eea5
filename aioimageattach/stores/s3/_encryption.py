"""Encryption at rest with keys of S3, keys in KMS, or customer-provided keys. Does no I/O."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

__all__ = ["Encryption"]

_PREFIX: Final = "x-amz-server-side-encryption"


@dataclass(frozen=True, slots=True)
class Encryption:
    """The server-side encryption of objects; create it with :meth:`s3`, :meth:`kms` or :meth:`customer`.

    Its repr does not reveal a key.

    Args:
        write: The headers of requests that create an object.
        read: The headers of requests that read an object; they are also sent with each part of a multipart upload.
    """

    write: Mapping[str, str] = field(repr=False)
    read: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def s3(cls) -> Self:
        """Encrypt with keys that S3 manages (SSE-S3)."""
        return cls({_PREFIX: "AES256"})

    @classmethod
    def kms(cls, key_id: str | None = None, *, bucket_key: bool = False) -> Self:
        """Encrypt with a key in KMS (SSE-KMS).

        Args:
            key_id: The ID of the key; ``None`` means the key that AWS manages for S3.
            bucket_key: ``True`` if S3 derives a bucket key from that key, which reduces the number of requests to KMS.
        """
        headers = {_PREFIX: "aws:kms"}
        if key_id is not None:
            headers[f"{_PREFIX}-aws-kms-key-id"] = key_id
        if bucket_key:
            headers[f"{_PREFIX}-bucket-key-enabled"] = "true"
        return cls(headers)

    @classmethod
    def customer(cls, key: bytes) -> Self:
        """Encrypt with a key that the client provides and the server does not store (SSE-C).

        Files cannot be read without the key. In particular, browsers cannot read them by URL.

        Args:
            key: 32 random bytes. Each request sends the key, so TLS is required.

        Raises:
            ValueError: The key is not 32 bytes long.
        """
        if len(key) != 32:
            raise ValueError(f"key: expected 32 bytes, got {len(key)}")
        digest = hashlib.md5(key, usedforsecurity=False).digest()
        headers = {
            f"{_PREFIX}-customer-algorithm": "AES256",
            f"{_PREFIX}-customer-key": base64.b64encode(key).decode(),
            f"{_PREFIX}-customer-key-MD5": base64.b64encode(digest).decode(),
        }
        return cls(headers, headers)

    @property
    def copy_source(self) -> Mapping[str, str]:
        """The headers with which a copy request can decrypt its source."""
        return {name.replace("x-amz-", "x-amz-copy-source-", 1): value for name, value in self.read.items()}
