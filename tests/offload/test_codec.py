"""Compression: stored values are restored, and other data is rejected."""

from __future__ import annotations

import gzip
import hashlib
import random
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach.exc import DamagedValueError, DeclarationError
from aioimageattach.offload import _codec as codec

COMPRESSIONS: list[Any] = [None, "gzip", "zstd"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(data=st.binary(max_size=3000), times=st.integers(1, 400))
def test_values_are_restored(compression: Any, data: bytes, times: int) -> None:
    """Values of any size, including more than a block, are restored, and never exceed the bound."""
    data *= times
    file = codec.compress(data, compression)
    assert len(file) <= codec.bound(len(data))
    assert codec.decompress(file, len(data), sha256(data), compression, "x") == data


PLAIN = b"some text, " * 50_000
BOMB = bytes(200_000_000)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_altered_data_is_refused(compression: Any) -> None:
    """Truncated, extended, repeated, resized, altered, foreign and empty data is rejected."""
    file = codec.compress(PLAIN, compression)
    size, fingerprint = len(PLAIN), sha256(PLAIN)
    wrong = [
        (file[:-1], size, fingerprint),
        (file[: len(file) // 2], size, fingerprint),
        (file + b"x", size, fingerprint),
        (file + file, size, fingerprint),
        (file, size - 1, fingerprint),
        (file, size + 1, fingerprint),
        (file, size, sha256(b"")),
        (b"nonsense" + file, size, fingerprint),
        (b"", size, fingerprint),
    ]
    for data, length, digest in wrong:
        with pytest.raises(DamagedValueError, match="'x' is not what was stored"):
            codec.decompress(data, length, digest, compression, "x")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_trailing_data_is_refused(compression: Any) -> None:
    """Data after the end of the value is rejected, even in a later block."""
    plain = random.Random(1).randbytes(2 * codec.BLOCK)
    file = codec.compress(plain, compression)
    with pytest.raises(DamagedValueError, match="'x' is not what was stored"):
        codec.decompress(file + file, len(plain), sha256(plain), compression, "x")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_decompression_bomb_takes_little_memory(compression: Any) -> None:
    """A false size is detected after this size: 200 MB are rejected with some kilobytes of memory."""
    file = codec.compress(BOMB, compression)
    assert len(file) < 250_000
    tracemalloc.start()
    try:
        with pytest.raises(DamagedValueError, match="expected 1,000,000 bytes, got more"):
            codec.decompress(file, 1_000_000, sha256(b""), compression, "x")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_large_window_is_refused() -> None:
    """A header of zstd may request 128 MB before a byte is decompressed."""
    library = codec._zstd()
    options = {library.CompressionParameter.window_log: 27, library.CompressionParameter.compression_level: 3}
    packer = library.ZstdCompressor(options=options)
    file = packer.compress(PLAIN) + packer.flush()
    with pytest.raises(DamagedValueError, match="cannot be decompressed"):
        codec.decompress(file, len(PLAIN), sha256(PLAIN), "zstd", "x")


def test_gzip_is_gzip() -> None:
    """Other programs can decompress the data."""
    assert gzip.decompress(codec.compress(PLAIN, "gzip")) == PLAIN


@pytest.mark.parametrize("compression", ["lzma", "", 3])
def test_an_unknown_compression(compression: object) -> None:
    """The message lists the supported compressions."""
    with pytest.raises(DeclarationError, match="expected None, 'gzip' or 'zstd'"):
        codec.check_compression(compression)


def test_zstd_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without zstd, the declaration fails, and values that do not need it keep working."""
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeclarationError, match=r"aioimageattach\[zstd\]"):
        codec.check_compression("zstd")
    assert codec.check_compression("gzip") == "gzip"
