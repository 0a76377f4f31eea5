"""Byte ranges."""

from __future__ import annotations

import email
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._http.ranges import MAX_RANGES, multipart_body, parse_ranges

SIZE = 10_000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-499", [(0, 500)]),
        ("bytes=9500-", [(9500, SIZE)]),
        ("bytes=-500", [(9500, SIZE)]),
        ("bytes=-20000", [(0, SIZE)]),
        ("bytes=9999-999999999999999999999999", [(9999, SIZE)]),
        ("Bytes=0-0", [(0, 1)]),
        ("bytes= 0-0 ,, -1 ,", [(0, 1), (9999, SIZE)]),
        ("bytes=-1, 0-0", [(9999, SIZE), (0, 1)]),
        ("bytes=0-99,50-149", [(0, 150)]),
        ("bytes=0-99,150-199", [(0, 200)]),
        ("bytes=5000-5001,0-99,150-199", [(0, 200), (5000, 5002)]),
        ("bytes=0-,0-,0-", [(0, SIZE)]),
        ("bytes=10000-, 0-0", [(0, 1)]),
    ],
)
def test_ranges_that_are_sent(header: str, expected: list[tuple[int, int]]) -> None:
    """Ranges are sent in the order of the request; overlapping and nearly adjacent ones are merged."""
    assert parse_ranges(header, SIZE) == expected


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=-0", "bytes=99999-100000", "bytes=10000-,-0"])
def test_ranges_beyond_the_file(header: str) -> None:
    """Well-formed ranges beyond the end of the file result in 416."""
    assert parse_ranges(header, SIZE) == []


@pytest.mark.parametrize(
    "header",
    [
        "", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=0-1,5-2", "bytes=1_0-20",
        "bytes=+1-2",
        "bytes=0-+1", "bytes=0x0-1", "bytes=--1", "bytes=0 - 1", "bytes =0-1", "items=0-1", "bytes=٠-١", "bytes:0-1",
        "bytes=0-1;2-3", "bytes=0-1, bytes=2-3", f"bytes={','.join(f'{n}-{n}' for n in range(0, 200, 2))}",
        f"bytes=0-{'9' * 5000}", "bytes=0.5-1", "bytes=0-1\0",
    ],
)  # fmt: skip
def test_ignored_headers(header: str) -> None:
    """A header with another unit, invalid syntax or too many ranges is ignored, so the whole file is sent."""
    assert parse_ranges(header, SIZE) is None


def test_an_empty_file_has_no_ranges() -> None:
    """A range of an empty file is ignored, because no Content-Range could describe it."""
    assert parse_ranges("bytes=0-", 0) is None


def test_the_maximum_number_of_ranges() -> None:
    """The maximum number of ranges is accepted, and one more is not."""
    specs = [f"{place}-{place}" for place in range(0, 200 * (MAX_RANGES + 1), 200)]
    allowed = parse_ranges(f"bytes={','.join(specs[:-1])}", SIZE)
    assert allowed is not None
    assert len(allowed) == MAX_RANGES
    assert parse_ranges(f"bytes={','.join(specs)}", SIZE) is None


specs = st.one_of(
    st.tuples(st.integers(0, 1200), st.integers(0, 1200)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    st.integers(0, 1200).map(lambda first: f"{first}-"),
    st.integers(0, 1200).map(lambda length: f"-{length}"),
)


def wanted(spec: str, size: int) -> set[int]:
    first, _, last = spec.partition("-")
    if not first:
        return set(range(max(0, size - int(last)), size))
    return set(range(int(first), min(int(last) + 1 if last else size, size)))


@given(st.lists(specs, min_size=1, max_size=MAX_RANGES), st.integers(1, 1000))
def test_each_requested_byte_is_sent_once(asked: list[str], size: int) -> None:
    """Every requested byte is sent exactly once, and never more bytes than the file has."""
    found = parse_ranges(f"bytes={', '.join(asked)}", size)
    assert found is not None
    sent = [place for start, end in found for place in range(start, end)]
    assert len(set(sent)) == len(sent) <= size
    assert set(sent) >= set[int]().union(*(wanted(spec, size) for spec in asked))
    ordered = sorted(found)
    assert all(one[1] < other[0] for one, other in pairwise(ordered))


def test_a_multipart_body_can_be_parsed() -> None:
    """An independent parser finds the bytes, their positions and their type."""
    content = bytes(range(256))
    pieces = multipart_body([(200, 256), (0, 10)], 256, "image/png", "limit")
    body = b"".join(piece if isinstance(piece, bytes) else content[slice(*piece)] for piece in pieces)
    message = email.message_from_bytes(b"Content-Type: multipart/byteranges; boundary=limit\r\n" + body)
    found = [
        (part["Content-Range"], part["Content-Type"], part.get_payload(decode=True)) for part in message.get_payload()
    ]  # type: ignore[union-attr]
    assert found == [
        ("bytes 200-255/256", "image/png", content[200:]),
        ("bytes 0-9/256", "image/png", content[:10]),
    ]
