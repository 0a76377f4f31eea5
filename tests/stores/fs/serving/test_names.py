"""Paths that may be served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._names import EXTENSIONS, LEGACY_EXTENSIONS
from aioimageattach.exc import InvalidKeyError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs._paths import legacy_name
from aioimageattach.stores.fs._serving.names import parse_path

REVISION = "01jd0000000000000000000000"
NAME = f"photo/01jd0/00/{REVISION}.320x200.jpg"

mimetypes = st.sampled_from([*EXTENSIONS, *LEGACY_EXTENSIONS, "image/x-unknown", "text/html"])
kinds = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,20}[A-Za-z0-9]", fullmatch=True)


def key_of(kind: str, number: int | None, mimetype: str, revision: str | None) -> ImageKey | None:
    try:
        return ImageKey(kind, number, 320, 200, mimetype, revision)
    except InvalidKeyError:  # the name of a device
        return None


@given(kinds, mimetypes)
def test_names_of_the_store_are_served(kind: str, mimetype: str) -> None:
    """Names of the store have the revision as the tag; raster images are inline, all others are downloads."""
    key = key_of(kind, None, mimetype, make_revision())
    if key is not None:
        found = parse_path(key.file_name())
        assert found is not None
        assert found.etag == f'"{key.revision}"'
        assert found.mimetype == (mimetype if mimetype in EXTENSIONS else "application/octet-stream")
        assert found.inline is (mimetype in EXTENSIONS and mimetype not in ("image/svg+xml", "application/pdf"))
        assert found.filename == f"{key.revision}.320x200{EXTENSIONS.get(mimetype, '')}"


@given(kinds, st.integers(-(2**70), 2**512 - 1), mimetypes)
def test_legacy_names_are_served(kind: str, number: int, mimetype: str) -> None:
    """Legacy names have no tag, because legacy files can change."""
    key = key_of(kind, number, mimetype, None)
    if key is not None:
        found = parse_path(legacy_name(key))
        assert found is not None
        assert found.etag is None
        assert found.mimetype == (mimetype if mimetype in LEGACY_EXTENSIONS else "application/octet-stream")
        assert found.inline is (mimetype in LEGACY_EXTENSIONS and mimetype not in ("image/svg+xml", "application/pdf"))


@pytest.mark.parametrize(
    ("extension", "mimetype"), [(".jpeg", "image/jpeg"), (".jpg", "image/jpeg"), (".webp", "image/webp")]
)
def test_legacy_names_with_other_extensions(extension: str, mimetype: str) -> None:
    """Legacy names may have other extensions, which depended on the machine."""
    found = parse_path(f"photo/7/0/7.320x200{extension}")
    assert found is not None
    assert found.mimetype == mimetype


@pytest.mark.parametrize(
    "path",
    [
        "", "/", NAME + "/", "/" + NAME, "./" + NAME, "../" + NAME, NAME + "\n", NAME + "\0", NAME + " ", NAME + ".",
        NAME.replace("/", "//", 1), NAME.replace("/", "\\"), NAME.replace("photo", ".."),
        NAME.replace("photo", ".photo"), NAME.replace("photo", "ph%6fto"), NAME.replace("photo", "fo\u0308to"),
        NAME.replace("photo", "con"), NAME.replace("photo", "x" * 129), NAME.replace("photo", "x" * 5000),
        NAME.replace("/00/", "/01/"), NAME.replace("01jd0/", "01jd1/"), NAME.replace("/", "\u2215"),
        NAME.replace(".jpg", ".jpe"), NAME.replace(".jpg", ".JPG"), NAME.replace(".jpg", ".html"),
        NAME.replace(".jpg", ".jpg.html"),
        NAME.replace("320", "0"), NAME.replace("320", "0320"), NAME.replace("320", "-1"),
        NAME.replace("320", "9999999999"),
        NAME.replace("320", "\u0663"), NAME.replace(REVISION, "." + REVISION), NAME.replace(REVISION, "01jd000"),
        "photo/7/0/007.1x1.jpe", "photo/007/0/7.1x1.jpe", "photo/7/0/7.1x1", "photo/8/0/7.1x1.jpe",
        "photo/7/0/x.1x1.jpe",
        "photo/7/0/7.1x1.html", "photo/7/0/7_0.1x1.jpe", "photo/0/-1/-1.1x1.jpe", "photo/7/0/+7.1x1.jpe",
        ".aioimageattach-0123/01jd0/00/" + REVISION + ".1x1.jpg", "photo", "photo/01jd0/00", "Caddyfile", "a/b/c/d/e",
        "~root/x", "C:/x", "-rf", "photo/*", "photo/[a]",
    ],
)  # fmt: skip
def test_other_paths_are_not_served(path: str) -> None:
    """Names that the store never generates, and other spellings of its names, are not served."""
    assert parse_path(path) is None


@given(st.text(max_size=60) | st.from_regex(r"[a-z./\\%0-9x-]{0,60}", fullmatch=True))
def test_any_path_can_be_parsed(path: str) -> None:
    """A path that is served has no empty or dotted segment, and no character that needs escaping."""
    found = parse_path(path)
    assert found is None or (found.name == path and not {"", ".", ".."} & set(path.split("/")))
