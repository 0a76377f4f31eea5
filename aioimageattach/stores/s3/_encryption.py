"""Encryption at rest: by S3's keys, by KMS, by keys of one's own. Pure."""

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
    """How a server is to encrypt; made by :meth:`s3`, :meth:`kms` or :meth:`customer`. Its repr shows no key.

    Args:
        write: The headers of what makes an object.
        read: The headers of what reads one; they go with each part of an upload, too.
    """

    write: Mapping[str, str] = field(repr=False)
    read: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def s3(cls) -> Self:
        """Encrypt by keys that S3 keeps (SSE-S3)."""
        return cls({_PREFIX: "AES256"})

    @classmethod
    def kms(cls, key_id: str | None = None, *, bucket_key: bool = False) -> Self:
        """Encrypt by a key in KMS (SSE-KMS).

        Args:
            key_id: Which; ``None`` means Amazon's own for S3.
            bucket_key: Whether the bucket has a key of its own below that one, which saves requests to KMS.
        """
        headers = {_PREFIX: "aws:kms"}
        if key_id is not None:
            headers[f"{_PREFIX}-aws-kms-key-id"] = key_id
        if bucket_key:
            headers[f"{_PREFIX}-bucket-key-enabled"] = "true"
        return cls(headers)

    @classmethod
    def customer(cls, key: bytes) -> Self:
        """Encrypt by a key that the server forgets (SSE-C); without it nobody reads the files, also by no URL.

        Args:
            key: 32 random bytes; sent with each request, so only over TLS.

        Raises:
            ValueError: It has another length.
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
        """The headers that let a copy read its source."""
        return {name.replace("x-amz-", "x-amz-copy-source-", 1): value for name, value in self.read.items()}
