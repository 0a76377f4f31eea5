"""The content of the column: names with all metadata, and references that are always validated."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._names import revision_of, revision_time
from aioimageattach.exc import DamagedValueError, DeclarationError
from aioimageattach.offload._codec import Compression
from aioimageattach.offload._reference import (
    Inline,
    Reference,
    check_kind,
    check_object_type,
    format_inline,
    make_reference,
    parse,
    parse_name,
)

SHA = "0123456789abcdef" * 4


def made(
    *, size: int = 10, stored: int = 10, compression: Compression | None = None, shared: bool = False
) -> Reference:
    return make_reference(
        "article.body", size=size, stored=stored, sha256=SHA, kind=".txt", compression=compression, shared=shared
    )


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_name_contains_all_metadata(compression: Compression | None, shared: bool) -> None:
    """Parsing a name returns the values from which it was made, and the name fits into the column."""
    longest = make_reference(
        "x" * 80, size=10**14, stored=10**14, sha256=SHA, kind=".abcdefghijkl", compression=compression, shared=shared
    )
    for reference in (made(compression=compression, shared=shared), longest):
        assert parse(str(reference), reference.object_type) == reference == parse_name(reference.name)
        assert len(str(reference)) <= 255
        assert abs(time.time() - reference.since) < 2**25 / 1000 + 1


def test_names_contain_their_time() -> None:
    """A sweep need not query recent names, and no two names are equal."""
    names = [made().name for _ in range(100)]
    assert len(set(names)) == 100
    revision = revision_of(names[0])
    assert revision is not None
    moment = revision_time(revision)
    assert moment is not None
    assert abs(moment.timestamp() - time.time()) < 5


def test_shared_names_of_equal_values_are_equal() -> None:
    """Shared names of equal values are equal within nine hours, and differ from others."""
    one, two = made(shared=True), made(shared=True)
    assert one.name == two.name or one.name[:20] != two.name[:20]
    assert one.name != made(shared=True, size=11, stored=11).name


@given(st.binary(max_size=200))
def test_values_in_the_row(data: bytes) -> None:
    """Bytes are stored as text if they are valid text, and never with characters that PostgreSQL rejects."""
    raw = format_inline(data)
    assert parse(raw, "article.body") == Inline(data)
    assert "\0" not in raw


def test_texts_are_stored_unchanged_in_the_row() -> None:
    """A text in the row is readable for people and in SQL."""
    assert format_inline("grün".encode()) == "=grün"
    assert format_inline(b"") == "="
    assert format_inline(b"\xff") == "#/w=="


NAME = made(compression="gzip").name


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "plain",
        "#not base64",
        "#YQ",
        "@",
        NAME,
        "@" + NAME.replace("article.body", "article.secret"),
        "@s3://other-bucket/" + NAME,
        "@file:///etc/passwd",
        "@article.body/../../etc/passwd",
        "@article.body/../article.secret/" + NAME.partition("/")[2],
        "@/" + NAME,
        "@" + NAME + "/x",
        "@" + NAME + "\n",
        "@" + NAME.replace(".10.10.", ".10.99999.", 1),
        "@" + NAME.replace(".10.10.", ".10.010.", 1),
        "@" + NAME.replace(".10.10.", f".{10**16}.10.", 1),
        "@" + NAME.replace(".gz", ".xz"),
        "@" + NAME.upper(),
        "@" + NAME.replace(SHA, SHA[:-1]),
        "@" + NAME.replace(SHA, "\u0660" * 64),
        "@article.body/aaaaa/bb/" + NAME.rpartition("/")[2],
        "cos\nsystem\n(S'true'\ntR.",
    ],
    ids=lambda raw: str(len(raw)),  # a name contains the current time, and each test process must find the same ids
)
def test_foreign_references_are_refused(raw: str) -> None:
    """Files of other columns and buckets, paths and false sizes are neither read nor deleted."""
    with pytest.raises(DamagedValueError, match=r"article\.body"):
        parse(raw, "article.body")


def test_other_content_is_not_shown() -> None:
    """The message repeats a name, to help finding the file, but no other text of the column."""
    with pytest.raises(DamagedValueError, match=r"holds 11 characters, which") as caught:
        parse("Dear Mr. X,", "article.body")
    assert "Dear" not in str(caught.value)
    with pytest.raises(DamagedValueError, match=r"holds '@other/name', which"):
        parse("@other/name", "article.body")


@pytest.mark.parametrize("object_type", ["", "a/b", "..", ".a", "a.", "-x", "a b", "ä", "x" * 81, "a\n"])
def test_invalid_object_types(object_type: str) -> None:
    """The message states the expected form."""
    with pytest.raises(DeclarationError, match="expected at most 80"):
        check_object_type(object_type)


@pytest.mark.parametrize("kind", ["", "txt", ".", ".TXT", ".tar.gz", ".gz", ".zst", ".abcdefghijklm", ".a b"])
def test_invalid_kinds(kind: str) -> None:
    """Invalid extensions are rejected, and so are those of compressions."""
    with pytest.raises(DeclarationError, match=r"such as '\.msgpack'"):
        check_kind(kind)
    assert check_kind(".msgpack") == ".msgpack"
