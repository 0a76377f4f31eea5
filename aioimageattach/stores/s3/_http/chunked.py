"""Bodies in Amazon's chunked encoding with a trailing checksum, which is computed in the same pass that sends the body.

The server verifies the checksum. Does no I/O: blocks in, bytes out. Implements "Using trailing headers" of the Amazon
S3 API Reference. The payload hash for the signature is ``UNSIGNED_TRAILER``. Some servers, especially older ones,
reject such bodies, so they are sent only on request.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from ....exc import DeclarationError

__all__ = ["UNSIGNED_TRAILER", "Algorithm", "ChunkedBody", "Hash", "checksum", "new_hash"]

UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""The payload hash of a body in unsigned chunks with a trailing checksum."""

Algorithm: TypeAlias = Literal["crc32", "crc32c", "crc64nvme", "sha1", "sha256"]
"""The checksum algorithms that S3 supports. ``crc32c`` and ``crc64nvme`` require awscrt."""

_CRC_SIZES: Final = {"crc32": 4, "crc32c": 4, "crc64nvme": 8}


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, add: Callable[[bytes | memoryview, int], int], size: int) -> None:
        self._add = add
        self._size = size
        self._value = 0

    def update(self, data: bytes | memoryview) -> None:
        self._value = self._add(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _awscrt(algorithm: Algorithm) -> Any:
    try:
        return getattr(import_module("awscrt.checksums"), algorithm)
    except ImportError:
        raise DeclarationError(
            f"checksum={algorithm!r} requires the package awscrt: pip install 'aioimageattach[crt]'"
        ) from None


def new_hash(algorithm: Algorithm) -> Hash:
    """Return a new hash object that computes a checksum.

    Raises:
        ValueError: The algorithm is unknown.
        DeclarationError: The library for the algorithm is not installed.
    """
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"checksum: expected one of {', '.join(get_args(Algorithm))}, got {algorithm!r}")
    if algorithm in _CRC_SIZES:
        return _Crc(zlib.crc32 if algorithm == "crc32" else _awscrt(algorithm), _CRC_SIZES[algorithm])
    return hashlib.new(algorithm, usedforsecurity=False)


def checksum(data: bytes | memoryview, algorithm: Algorithm) -> str:
    """Return a checksum in base64, as in the header ``x-amz-checksum-ALGORITHM``."""
    state = new_hash(algorithm)
    state.update(data)
    return base64.b64encode(state.digest()).decode()


def _frame(chunk: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


def _framed(size: int) -> int:
    return len(f"{size:x}") + size + 4


class ChunkedBody:
    """An encoder for one body. Encoding takes CPU time, so feed large blocks in a worker thread.

    Args:
        size: The size of the body, in bytes.
        algorithm: The algorithm of the trailing checksum.
        chunk_size: The size of a chunk, in bytes; S3 requires at least 8 KiB for all chunks but the last.

    Raises:
        ValueError: A size is out of range, or the algorithm is unknown.
    """

    def __init__(self, size: int, algorithm: Algorithm = "crc32", *, chunk_size: int = 64 * 1024) -> None:
        if size < 0:
            raise ValueError(f"size: expected at least 0 bytes, got {size}")
        if chunk_size < 8192:
            raise ValueError(f"chunk_size: expected at least 8,192 bytes, got {chunk_size}")
        self._hash = new_hash(algorithm)
        self._name = f"x-amz-checksum-{algorithm}"
        self._size = size
        self._chunk_size = chunk_size
        self._pending = b""
        self._fed = 0

    def headers(self) -> dict[str, str]:
        """Return the headers that the request requires, including ``content-length``.

        If the object has a ``content-encoding`` of its own, append it: ``aws-chunked,gzip``.
        """
        whole, rest = divmod(self._size, self._chunk_size)
        length = whole * _framed(self._chunk_size) + (_framed(rest) if rest else 0)
        length += len(self._end(bytes(len(self._hash.digest()))))
        return {
            "content-encoding": "aws-chunked",
            "content-length": str(length),
            "x-amz-decoded-content-length": str(self._size),
            "x-amz-trailer": self._name,
        }

    def feed(self, block: bytes) -> bytes:
        """Encode a block; return the bytes that can be sent now, which may be empty.

        Raises:
            ValueError: The body is longer than ``size``.
        """
        self._fed += len(block)
        if self._fed > self._size:
            raise ValueError(f"body: expected {self._size:,} bytes, as announced, got more")
        self._hash.update(block)
        data = self._pending + block
        whole = len(data) - len(data) % self._chunk_size
        self._pending = data[whole:]
        return b"".join(_frame(data[start : start + self._chunk_size]) for start in range(0, whole, self._chunk_size))

    def finish(self) -> bytes:
        """Return the remaining data, the final chunk and the checksum.

        Raises:
            ValueError: The body is shorter than ``size``.
        """
        if self._fed != self._size:
            raise ValueError(f"body: expected {self._size:,} bytes, as announced, got {self._fed:,}")
        rest = _frame(self._pending) if self._pending else b""
        return rest + self._end(self._hash.digest())

    def _end(self, digest: bytes) -> bytes:
        return f"0\r\n{self._name}:{base64.b64encode(digest).decode()}\r\n\r\n".encode()
