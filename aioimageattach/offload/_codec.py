"""Compression and bounded decompression: the output never exceeds the declared size."""

from __future__ import annotations

import hashlib
import importlib
import zlib
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, cast

from ..exc import DamagedValueError, DeclarationError

__all__ = ["BLOCK", "Compression", "Decoder", "bound", "check_compression", "compress", "decompress", "extension_of"]

Compression = Literal["gzip", "zstd"]
"""The compression of a file."""

BLOCK: Final = 256 * 1024
"""Maximum number of bytes that a decoder returns per call."""

_EXTENSIONS: Final = MappingProxyType({"gzip": ".gz", "zstd": ".zst"})
_GZIP: Final = 31  # zlib's wbits for the gzip format with a window of 32 KiB
_WINDOW: Final = 23  # 8 MiB, the largest window of levels up to 19; a frame could require much more memory


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _zstd() -> Any:
    """Return the zstd module, which is part of Python since 3.14.

    Raises:
        DeclarationError: It is not available.
    """
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DeclarationError(
        "compression='zstd' needs Python 3.14 or the package backports.zstd: pip install 'aioimageattach[zstd]'"
    )


def check_compression(compression: object) -> Compression | None:
    """Return the compression if it is valid and available.

    Raises:
        DeclarationError: The compression is unknown, or its library is not installed.
    """
    if compression not in (None, *_EXTENSIONS):
        raise DeclarationError(f"compression: expected None, 'gzip' or 'zstd', got {compression!r}")
    if compression == "zstd":
        _zstd()
    return cast("Compression | None", compression)


def extension_of(compression: Compression | None) -> str:
    """Return the file name extension of the compression, with its dot; empty for none."""
    return "" if compression is None else _EXTENSIONS[compression]


def compress(data: bytes | memoryview, compression: Compression | None) -> bytes:
    """Compress data; equal data result in equal bytes."""
    if compression == "gzip":
        packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        return packer.compress(data) + packer.flush()
    if compression == "zstd":
        return cast("bytes", _zstd().compress(data, level=3))
    return bytes(data)


def bound(size: int) -> int:
    """Return the maximum compressed size for data of a size; incompressible data grow slightly."""
    return size + size // 500 + 1024


class _Gzip:
    """zlib's decompressor with the interface of the others: it keeps unconsumed input itself."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class _Plain:
    """A decompressor for uncompressed data."""

    unused_data = b""

    def __init__(self) -> None:
        self._rest = memoryview(b"")

    @property
    def eof(self) -> bool:
        return not self._rest

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        rest = memoryview(data) if data else self._rest  # fed again only when nothing is left
        self._rest = rest[max_length:]
        return bytes(rest[:max_length])


def _decompressor(compression: Compression | None) -> tuple[_Decompressor, type[Exception]]:
    """Return a decompressor and the exception that it raises."""
    if compression == "gzip":
        return _Gzip(), zlib.error
    if compression is None:
        return _Plain(), zlib.error
    library = _zstd()
    options = {library.DecompressionParameter.window_log_max: _WINDOW}
    return library.ZstdDecompressor(options=options), library.ZstdError


class Decoder:
    """A decoder that decompresses the bytes of a file, and verifies their size and SHA-256.

    It returns at most :data:`BLOCK` bytes per call, and decompresses at most one byte more than ``size`` in total.

    Args:
        size: Expected size of the value in bytes.
        sha256: Expected SHA-256 of the value, in hexadecimal.
        compression: The compression of the file.
        name: The name of the file in error messages.
    """

    def __init__(self, size: int, sha256: str, compression: Compression | None, name: str) -> None:
        self._size = size
        self._sha256 = sha256
        self._name = name
        self._hash = hashlib.sha256()
        self._left = size
        self._inner, self._error = _decompressor(compression)

    def feed(self, data: bytes) -> bytes:
        """Feed the next bytes of the file, and return the next bytes of the value.

        Args:
            data: Bytes of the file, at most :data:`BLOCK` to avoid copies. Pass ``b""`` for as long as the last call
                returned bytes.

        Returns:
            At most :data:`BLOCK` bytes; empty if all input has been processed.

        Raises:
            DamagedValueError: The content of the file is not what was stored.
        """
        if not data and self._inner.eof:
            return b""
        try:
            found = self._inner.decompress(data, min(BLOCK, self._left + 1))
        except EOFError as error:  # input after the end of the compressed data
            raise self._damaged("expected one compressed stream, got several") from error
        except self._error as error:
            raise self._damaged(f"it cannot be decompressed: {error}") from error
        self._left -= len(found)
        if self._left < 0:
            raise self._damaged(f"expected {self._size:,} bytes, got more")
        self._hash.update(found)
        return found

    def finish(self) -> None:
        """Verify the value after the end of the file.

        Raises:
            DamagedValueError: The content of the file is not what was stored.
        """
        if not self._inner.eof or self._left:
            raise self._damaged(f"expected {self._size:,} bytes, got only {self._size - self._left:,}")
        if self._inner.unused_data:
            raise self._damaged("expected the end of the file, got more bytes")
        if self._hash.hexdigest() != self._sha256:
            raise self._damaged(f"expected the SHA-256 {self._sha256}, got {self._hash.hexdigest()}")

    def _damaged(self, problem: str) -> DamagedValueError:
        return DamagedValueError(f"the file {self._name!r} is not what was stored: {problem}")


def decompress(data: bytes, size: int, sha256: str, compression: Compression | None, name: str) -> bytes:
    """Decompress and verify a complete file; see :class:`Decoder`.

    Raises:
        DamagedValueError: The content of the file is not what was stored.
    """
    decoder = Decoder(size, sha256, compression, name)
    pieces: list[bytes] = []
    for start in range(0, len(data), BLOCK):
        piece = decoder.feed(data[start : start + BLOCK])
        while piece:
            pieces.append(piece)
            piece = decoder.feed(b"")
    decoder.finish()
    return b"".join(pieces)
