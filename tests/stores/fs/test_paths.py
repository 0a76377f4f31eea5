"""Names and URLs of a directory store, which are calculated without I/O."""

from __future__ import annotations

import pytest

from aioimageattach.exc import InvalidKeyError
from aioimageattach.key import ImageKey
from aioimageattach.stores.fs import _paths as paths
from aioimageattach.stores.fs import guess_extension


@pytest.mark.parametrize(
    ("object_id", "mimetype", "expected"),
    [
        (1, "image/jpeg", "user-picture/1/0/1.320x240.jpe"),
        (1234567, "image/png", "user-picture/567/1234/1234567.320x240.png"),
        (999, "image/gif", "user-picture/999/0/999.320x240.gif"),
        (1000, "image/svg+xml", "user-picture/0/1/1000.320x240.svg"),
        (0, "image/tiff", "user-picture/0/0/0.320x240.tiff"),
        (-1, "application/pdf", "user-picture/999/-1/-1.320x240.pdf"),
        (7, "image/webp", "user-picture/7/0/7.320x240None"),
    ],
)
def test_legacy_names(object_id: int, mimetype: str, expected: str) -> None:
    """A key without a revision has exactly the path that SQLAlchemy-ImageAttach used."""
    assert paths.legacy_name(ImageKey("user-picture", object_id, 320, 240, mimetype)) == expected


def test_a_legacy_name_requires_an_object_id() -> None:
    """A key without an ``object_id`` has no legacy path."""
    with pytest.raises(InvalidKeyError, match="object_id"):
        paths.legacy_name(ImageKey("user-picture", None, 320, 240, "image/jpeg"))


@pytest.mark.parametrize(("mimetype", "expected"), [("image/jpeg", ".jpe"), ("image/avif", None)])
def test_guess_extension(mimetype: str, expected: str | None) -> None:
    """The extension is that of SQLAlchemy-ImageAttach, or ``None`` if it used none."""
    assert guess_extension(mimetype) == expected


@pytest.mark.parametrize(
    "name", ["x" * 256, "a/" + "\u00fc" * 128, paths.SIDE_PREFIX, f"a/{paths.SIDE_PREFIX}1/b", "../x", "x" * 5000]
)
def test_invalid_names_in_a_directory(name: str) -> None:
    """Segments of more than 255 bytes and names of unfinished files are rejected, besides generally invalid names."""
    with pytest.raises(InvalidKeyError):
        paths.check_path(name)


@pytest.mark.parametrize("name", ["x" * 255, "a/" + "\u00fc" * 127, ".hidden", "/".join("a" * 500)])
def test_valid_names_in_a_directory(name: str) -> None:
    """Names with segments of up to 255 bytes are returned unchanged."""
    assert paths.check_path(name) == name


def test_names_of_unfinished_files() -> None:
    """The names start with the agreed prefix and are unique."""
    names = {paths.side_name() for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(paths.SIDE_PREFIX) and len(name) >= len(paths.SIDE_PREFIX) + 32 for name in names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.jpg", "https://x/a/b.jpg"),
        ("a b", "https://x/a%20b"),
        ("\u00e4?#%", "https://x/%C3%A4%3F%23%25"),
        ("~a+b", "https://x/~a%2Bb"),
    ],
)
def test_urls(name: str, expected: str) -> None:
    """All characters except unreserved ones and the slash are percent-encoded."""
    assert paths.url("https://x/", name) == expected
