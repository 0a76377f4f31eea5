"""Compression with an end: bytes in, bytes out, and never more of them than was said."""

from __future__ import annotations

import hashlib
import importlib
import zlib
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, cast

from ..exc import DamagedValueError, DeclarationError

__all__ = ["BLOCK", "Compression", "Decoder", "bound", "check_compression", "compress", "decompress", "extension_of"]

Compression = Literal["gzip", "zstd"]
"""How the bytes of a file are compressed."""

BLOCK: Final = 256 * 1024
"""How many bytes a decoder gives at once."""

_EXTENSIONS: Final = MappingProxyType({"gzip": ".gz", "zstd": ".zst"})
_GZIP: Final = 31  # zlib's word for a gzip member with a window of 32 KiB
_WINDOW: Final = 23  # 8 MiB, the most that levels up to 19 use; a frame may ask for much more


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _zstd() -> Any:
    """The library, if it is there: Python has it since 3.14."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DeclarationError(
        "compression='zstd' needs Python 3.14 or the package backports.zstd: pip install 'aioimageattach[zstd]'"
    )


def check_compression(compression: object) -> Compression | None:
    """Return the compression if it is one, and can be done here.

    Raises:
        DeclarationError: It is none, or the library for it is not installed.
    """
    if compression not in (None, *_EXTENSIONS):
        raise DeclarationError(f"compression: expected None, 'gzip' or 'zstd', got {compression!r}")
    if compression == "zstd":
        _zstd()
    return cast("Compression | None", compression)


def extension_of(compression: Compression | None) -> str:
    """Return what the compression adds to a file's name."""
    return "" if compression is None else _EXTENSIONS[compression]


def compress(data: bytes | memoryview, compression: Compression | None) -> bytes:
    """Return the data compressed; the same data give the same bytes."""
    if compression == "gzip":
        packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        return packer.compress(data) + packer.flush()
    if compression == "zstd":
        return cast("bytes", _zstd().compress(data, level=3))
    return bytes(data)


def bound(size: int) -> int:
    """Return how many bytes data of a size may have once compressed: a few more, where nothing can be saved."""
    return size + size // 500 + 1024


class _Gzip:
    """zlib's decompressor in the form of the others: it keeps what it has not yet read."""

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
    """Gives what it is given, as far as it is asked."""

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
    """What decompresses, and the error it raises."""
    if compression == "gzip":
        return _Gzip(), zlib.error
    if compression is None:
        return _Plain(), zlib.error
    library = _zstd()
    options = {library.DecompressionParameter.window_log_max: _WINDOW}
    return library.ZstdDecompressor(options=options), library.ZstdError


class Decoder:
    """Turns the bytes of a file into those that were stored, and finds out whether they are.

    It gives at most :data:`BLOCK` bytes at a time, and at most one more than the size it was told of in all.

    Args:
        size: How many bytes there have to be, without compression.
        sha256: Their fingerprint, 64 hexadecimal digits.
        compression: What was done to them.
        name: What messages call the file.
    """

    def __init__(self, size: int, sha256: str, compression: Compression | None, name: str) -> None:
        self._size = size
        self._sha256 = sha256
        self._name = name
        self._hash = hashlib.sha256()
        self._left = size
        self._inner, self._error = _decompressor(compression)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the file; return some of the value.

        Args:
            data: At most :data:`BLOCK` bytes where nothing is to be copied; none, as long as something comes back.

        Returns:
            At most :data:`BLOCK` bytes; none means that all that was taken is given.

        Raises:
            DamagedValueError: These are not the bytes that were stored.
        """
        if not data and self._inner.eof:
            return b""
        try:
            found = self._inner.decompress(data, min(BLOCK, self._left + 1))
        except EOFError as error:  # after its end
            raise self._damaged("there is more than one member in it") from error
        except self._error as error:
            raise self._damaged(f"it is no such file, or a broken one: {error}") from error
        self._left -= len(found)
        if self._left < 0:
            raise self._damaged(f"it holds more than the {self._size:,} bytes it is said to hold")
        self._hash.update(found)
        return found

    def finish(self) -> None:
        """Say that the file is at its end.

        Raises:
            DamagedValueError: These were not the bytes that were stored.
        """
        if not self._inner.eof or self._left:
            raise self._damaged(f"it is cut off, {self._size - self._left:,} of {self._size:,} bytes are there")
        if self._inner.unused_data:
            raise self._damaged("something follows its end")
        if self._hash.hexdigest() != self._sha256:
            raise self._damaged("its fingerprint is another")

    def _damaged(self, problem: str) -> DamagedValueError:
        return DamagedValueError(f"the file {self._name!r} is not what was stored: {problem}")


def decompress(data: bytes, size: int, sha256: str, compression: Compression | None, name: str) -> bytes:
    """Return the bytes that were stored, of a file that was read whole; see :class:`Decoder`.

    Raises:
        DamagedValueError: They are not the bytes that were stored.
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
