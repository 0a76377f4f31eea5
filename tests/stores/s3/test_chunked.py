"""Bodies in chunks with a checksum behind them, with botocore as the judge."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum, Sha1Checksum, Sha256Checksum

from aioimageattach.stores.s3.chunked import Algorithm, ChunkedBody, checksum

THEIRS: dict[Algorithm, Any] = {"crc32": Crc32Checksum, "sha1": Sha1Checksum, "sha256": Sha256Checksum}
DATA = bytes(range(251)) * 100


@pytest.mark.parametrize("algorithm", THEIRS)
@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16384, 25000])
@pytest.mark.parametrize("block", [1000, 8192, 20000])
def test_a_body_is_encoded_as_botocore_encodes_it(algorithm: Algorithm, size: int, block: int) -> None:
    """Whatever the blocks, the chunks are the same, and as long as the headers say."""
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
    """The checksum of a header is that of the trailer."""
    assert checksum(DATA, algorithm) == THEIRS[algorithm]().handle(DATA)


def test_a_body_of_another_length_is_refused() -> None:
    """A body that is longer or shorter than announced would break the request: it is said before it is sent."""
    with pytest.raises(ValueError, match="more bytes than the 3 that were announced"):
        ChunkedBody(3).feed(b"four")
    short = ChunkedBody(3)
    short.feed(b"no")
    with pytest.raises(ValueError, match="the body has 2 bytes, 3 were announced"):
        short.finish()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -1}, "size: expected at least 0"),
        ({"size": 1, "chunk_size": 8191}, "chunk_size: expected at least 8,192"),
        ({"size": 1, "algorithm": "md5"}, "algorithm: expected one of crc32, sha1, sha256, got 'md5'"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    """The message says what was expected."""
    with pytest.raises(ValueError, match=message):
        ChunkedBody(**arguments)
