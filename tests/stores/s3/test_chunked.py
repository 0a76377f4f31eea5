"""Chunked bodies with a trailing checksum, compared with botocore."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum, Sha1Checksum, Sha256Checksum

from aioimageattach.exc import DeclarationError
from aioimageattach.stores.s3._http.chunked import Algorithm, ChunkedBody, checksum, new_hash

THEIRS: dict[Algorithm, Any] = {"crc32": Crc32Checksum, "sha1": Sha1Checksum, "sha256": Sha256Checksum}
DATA = bytes(range(251)) * 100


@pytest.mark.parametrize("algorithm", THEIRS)
@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16384, 25000])
@pytest.mark.parametrize("block", [1000, 8192, 20000])
def test_a_body_is_encoded_as_botocore_encodes_it(algorithm: Algorithm, size: int, block: int) -> None:
    """For blocks of any size, the encoded body is that of botocore and has the announced length."""
    body = ChunkedBody(size, algorithm, chunk_size=8192)
    headers = body.headers()
    encoded = b"".join(body.feed(DATA[start : min(start + block, size)]) for start in range(0, size, block))
    encoded += body.finish()
    name = f"x-amz-checksum-{algorithm}"
    theirs = AwsChunkedWrapper(io.BytesIO(DATA[:size]), THEIRS[algorithm], name, chunk_size=8192)
    assert encoded == theirs.read()
    assert headers == {
        "content-encoding": "aws-chunked",
        "content-length": str(len(encoded)),
        "x-amz-decoded-content-length": str(size),
        "x-amz-trailer": name,
    }


@pytest.mark.parametrize("algorithm", THEIRS)
def test_a_checksum_is_written_as_botocore_writes_it(algorithm: Algorithm) -> None:
    """The checksum for a header is that of the trailer, and that of botocore."""
    assert checksum(DATA, algorithm) == THEIRS[algorithm]().handle(DATA)


@pytest.mark.parametrize(
    ("algorithm", "expected"), [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")]
)
def test_a_checksum_of_pieces(algorithm: Algorithm, expected: str) -> None:
    """The check values of the CRC catalogue result from pieces of any size."""
    state = new_hash(algorithm)
    for piece in (b"1", memoryview(b"2345678"), b"", b"9"):
        state.update(piece)
    assert state.digest().hex() == expected
    assert base64.b64decode(checksum(b"123456789", algorithm)).hex() == expected


def test_a_checksum_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checksum whose library is missing is rejected immediately, and others work."""
    monkeypatch.setitem(sys.modules, "awscrt.checksums", None)
    with pytest.raises(DeclarationError, match=r"checksum='crc64nvme' requires .* pip install 'aioimageattach\[crt\]'"):
        new_hash("crc64nvme")
    new_hash("crc32")


def test_a_body_of_another_length_is_refused() -> None:
    """A body that is longer or shorter than announced raises an error before the request is broken."""
    with pytest.raises(ValueError, match="expected 3 bytes, as announced, got more"):
        ChunkedBody(3).feed(b"four")
    short = ChunkedBody(3)
    short.feed(b"no")
    with pytest.raises(ValueError, match="expected 3 bytes, as announced, got 2"):
        short.finish()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -1}, "size: expected at least 0"),
        ({"size": 1, "chunk_size": 8191}, "chunk_size: expected at least 8,192"),
        (
            {"size": 1, "algorithm": "md5"},
            "checksum: expected one of crc32, crc32c, crc64nvme, sha1, sha256, got 'md5'",
        ),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str) -> None:
    """The message states what was expected."""
    with pytest.raises(ValueError, match=message):
        ChunkedBody(**arguments)
