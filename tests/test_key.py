"""Image keys, and the names that are derived from them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._names import check_mimetype, check_name, extension, is_own_name, revision_of, revision_time
from aioimageattach.exc import InvalidKeyError
from aioimageattach.key import ImageKey, guess_extension, make_revision
from aioimageattach.testing._contract import AWKWARD_NAMES, INVALID_NAMES

USUAL: dict[str, Any] = {
    "object_type": "user-picture",
    "object_id": 7,
    "width": 30,
    "height": 20,
    "mimetype": "image/jpeg",
    "revision": "01m7xvw392my0qm9gn0r3dt55c",
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("object_type", name) for name in INVALID_NAMES),
        *(
            ("object_type", name)
            for name in (None, 7, "a/b", ".hidden", "end.", "-rf", "~root", "a b", "a%2fb", "\u00fc", "x" * 129, "a\n")
        ),
        *(("object_type", name) for name in ("CON", "nul", "com1", "aux.jpg", "Lpt9.x.y")),
        *(("object_id", number) for number in ("1/../../x", "1", 1.0, True, 2**600, -(2**600))),
        *((side, size) for side in ("width", "height") for size in (0, -1, 2**31, 1.5, True, "1", None, float("nan"))),
        *(
            ("mimetype", text)
            for text in (None, "", "jpeg", "image/", "/x", "image/png\r\nX: 1", "text/html;charset=x")
        ),
        *(("mimetype", text) for text in ("image/" + "x" * 200, "image/png\n", "image/p ng", "a/b/c")),
        *(("revision", text) for text in ("", "short", "x" * 65, "../../../x", "12345678\n", "-2345678", "1234/5678")),
        ("revision", 12345678),
    ],
    ids=ascii,
)
def test_invalid_fields_of_a_key(field: str, value: object) -> None:
    """Each field is checked when the key is created, and the error names the field."""
    with pytest.raises(InvalidKeyError, match=field):
        ImageKey(**{**USUAL, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("object_type", name) for name in ("a", "_", "9", "A.b~c-d_", "a..b", "console", "x" * 128)),
        *(("object_id", number) for number in (None, 0, -5, 2**63, 2**128)),
        *(("mimetype", text) for text in ("image/svg+xml", "application/vnd.x-y.z")),
        *(("revision", text) for text in (None, "12345678", "A-b_c-d_", "x" * 64)),
        ("width", 2**31 - 1),
    ],
)
def test_valid_fields_of_a_key(field: str, value: object) -> None:
    """A key keeps its fields, equals a key with the same fields, and is immutable."""
    key = ImageKey(**{**USUAL, field: value})
    assert getattr(key, field) == value
    assert {key: 1}[ImageKey(**{**USUAL, field: value})] == 1
    with pytest.raises(AttributeError):
        setattr(key, field, value)


@pytest.mark.parametrize(
    ("mimetype", "expected"),
    [("image/jpeg", ".jpg"), ("image/svg+xml", ".svg"), ("image/avif", ".avif"), ("image/x-unknown", "")],
)
def test_extensions_of_new_files(mimetype: str, expected: str) -> None:
    """A new name has the usual extension of its MIME type, or none."""
    assert extension(mimetype) == expected
    name = ImageKey(**{**USUAL, "mimetype": mimetype}).file_name()
    assert name == f"user-picture/01m7x/vw/01m7xvw392my0qm9gn0r3dt55c.30x20{expected}"
    assert check_name(name) == name


def test_extensions_of_legacy_files() -> None:
    """Legacy names have the extensions of SQLAlchemy-ImageAttach, such as ``.jpe``."""
    assert [guess_extension(mimetype) for mimetype in ("image/jpeg", "image/png", "image/webp")] == [
        ".jpe",
        ".png",
        None,
    ]


def test_a_name_needs_a_revision() -> None:
    """A key without a revision has no name in this layout."""
    with pytest.raises(InvalidKeyError, match="key: expected a revision"):
        ImageKey(**{**USUAL, "revision": None}).file_name()


@given(times=st.lists(st.floats(0, 2**35), min_size=2, max_size=2, unique_by=lambda moment: int(moment * 1000)))
def test_revisions_are_in_order_of_time(times: list[float]) -> None:
    """Revisions and the names derived from them sort by time, whatever their random part is."""
    early, late = (make_revision(moment) for moment in sorted(times))
    assert early < late
    assert len(early) == 32
    assert ImageKey(**{**USUAL, "revision": early}).file_name() < ImageKey(**{**USUAL, "revision": late}).file_name()


def test_revisions_of_the_same_millisecond_differ() -> None:
    """Revisions of the same millisecond differ and cannot be guessed."""
    assert len({make_revision(1_700_000_000)[10:] for _ in range(1000)}) == 1000
    assert make_revision()[:5] == make_revision()[:5]


def test_a_directory_contains_the_files_of_half_a_minute() -> None:
    """At a million uploads a day, a directory contains some hundred files, and its parent a thousand directories."""

    def directories(seconds: range) -> Counter[str]:
        names = (ImageKey(**{**USUAL, "revision": make_revision(1_700_000_000 + s)}).file_name() for s in seconds)
        return Counter(name.rpartition("/")[0] for name in names)

    assert max(directories(range(100)).values()) <= 33
    assert max(Counter(path.rpartition("/")[0] for path in directories(range(0, 86_400, 32))).values()) <= 1024


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_valid_names_in_a_store(name: str) -> None:
    """A valid name is returned unchanged."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", [*INVALID_NAMES, None, b"a", 7, "x" * 1025, "\u00fc" * 513], ids=ascii)
def test_invalid_names_in_a_store(name: Any) -> None:
    """An invalid name is rejected with a reason, and the message contains only its beginning."""
    with pytest.raises(InvalidKeyError, match="name: expected ") as caught:
        check_name(name)
    assert len(str(caught.value)) < 200


def test_valid_mime_types() -> None:
    """A MIME type of the form ``type/subtype`` is returned unchanged."""
    assert check_mimetype("image/svg+xml") == "image/svg+xml"


def test_the_revision_is_found_in_a_name() -> None:
    """The revision is parsed from a name with or without an extension; names of another form have none."""
    for mimetype in ("image/jpeg", "image/unheard-of"):
        key = ImageKey(**{**USUAL, "mimetype": mimetype})
        assert revision_of(key.file_name()) == key.revision
    name = ImageKey(**USUAL).file_name()
    for other in ("user-picture/7/30x20.jpe", name.replace("/01m7x/", "/01m7y/"), f"media/{name}", name[:25], ""):
        assert revision_of(other) is None


@given(st.integers(0, 200_000_000_000_000))
def test_the_time_is_found_in_a_revision(milliseconds: int) -> None:
    """The time that is parsed from a revision is the time at which it was made."""
    found = revision_time(make_revision(milliseconds / 1000))
    assert found is not None
    assert abs(found.timestamp() - milliseconds / 1000) <= 0.002
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "revision", ["z" * 26, "01k9z3xbcdefghjkmnpqrstvw", "my-own-revision", "01K9Z3XBCDEFGHJKMNPQRSTVWX"]
)
def test_revisions_of_another_form_have_no_time(revision: str) -> None:
    """A revision of another form has no time."""
    assert revision_time(revision) is None


def test_the_largest_revision_has_a_time() -> None:
    """The largest possible revision has a valid time."""
    assert revision_time("6" + "z" * 25) == datetime(9774, 8, 21, 16, 50, 21, 823000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user/01jd0/00/01jd0000000000000000000000.3x2.jpg", True),
        (f"note.text/01jd0/shared.9.4.{'0' * 64}.zst", True),
        ("user/7/3x2.jpe", False),
        ("backup.tar", False),
    ],
)
def test_names_of_this_library(name: str, expected: bool) -> None:
    """Names of images and of shared values are recognised, and no others."""
    assert is_own_name(name) is expected
