"""Bodies in Amazon's own chunks, with a checksum behind them: one pass, and the server still compares.

Pure: blocks in, bytes out. It follows "Using trailing headers" of the Amazon S3 API Reference. The payload hash to sign
with is ``UNSIGNED_TRAILER``. Older servers and some others refuse such bodies, so nothing sends them unless asked.
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
"""The payload hash of a body in chunks that are not signed one by one, with a checksum behind them."""

Algorithm: TypeAlias = Literal["crc32", "crc32c", "crc64nvme", "sha1", "sha256"]
"""The checksums that S3 knows. Python's own library has three of them; ``crc32c`` and ``crc64nvme`` need awscrt."""

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
            f"checksum={algorithm!r} needs the package awscrt: pip install 'aioimageattach[crt]'"
        ) from None


def new_hash(algorithm: Algorithm) -> Hash:
    """Return what computes a checksum.

    Raises:
        ValueError: There is no such checksum.
        DeclarationError: The library for it is not installed.
    """
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"checksum: expected one of {', '.join(get_args(Algorithm))}, got {algorithm!r}")
    if algorithm in _CRC_SIZES:
        return _Crc(zlib.crc32 if algorithm == "crc32" else _awscrt(algorithm), _CRC_SIZES[algorithm])
    return hashlib.new(algorithm, usedforsecurity=False)


def checksum(data: bytes | memoryview, algorithm: Algorithm) -> str:
    """Return a checksum as S3 writes it in the header ``x-amz-checksum-ALGORITHM``: in base64."""
    state = new_hash(algorithm)
    state.update(data)
    return base64.b64encode(state.digest()).decode()


def _frame(chunk: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


def _framed(size: int) -> int:
    return len(f"{size:x}") + size + 4


class ChunkedBody:
    """Encodes one body. It computes: feed it large blocks in a worker thread.

    Args:
        size: How many bytes the body has.
        algorithm: The checksum that goes behind it.
        chunk_size: In bytes; S3 takes none below 8 KiB, the last one excepted.

    Raises:
        ValueError: A size or the algorithm is none.
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
        """Return the headers that the request needs, ``content-length`` among them.

        A ``content-encoding`` of the object's own goes behind ours: ``aws-chunked,gzip``.
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
        """Return what can be sent now that the block is known; perhaps nothing yet.

        Raises:
            ValueError: The body is longer than it was said to be.
        """
        self._fed += len(block)
        if self._fed > self._size:
            raise ValueError(f"the body has more bytes than the {self._size:,} that were announced")
        self._hash.update(block)
        data = self._pending + block
        whole = len(data) - len(data) % self._chunk_size
        self._pending = data[whole:]
        return b"".join(_frame(data[start : start + self._chunk_size]) for start in range(0, whole, self._chunk_size))

    def finish(self) -> bytes:
        """Return the rest, the end and the checksum.

        Raises:
            ValueError: The body is shorter than it was said to be.
        """
        if self._fed != self._size:
            raise ValueError(f"the body has {self._fed:,} bytes, {self._size:,} were announced")
        rest = _frame(self._pending) if self._pending else b""
        return rest + self._end(self._hash.digest())

    def _end(self, digest: bytes) -> bytes:
        return f"0\r\n{self._name}:{base64.b64encode(digest).decode()}\r\n\r\n".encode()
