"""The names of the files of declared thumbnails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._declared.framing import WHOLE, Framing
from aioimageattach._declared.names import (
    DerivedName,
    derived_type,
    legacy_key,
    legacy_revision,
    original_type,
    path_of,
    picture_of,
    public_of,
    stem_of,
)
from aioimageattach._names import revision_of
from aioimageattach.exc import InvalidKeyError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs._serving.names import parse_path
from tests.declared.test_framing import FRAMINGS

REVISION = "01m8mvtw392my0qm9gn0r3dt55cabcde"
EARLIER = "01m7xvw392my0qm9gn0r3dt55c"


@pytest.mark.parametrize(
    ("revision", "name", "look", "framing", "stem"),
    [
        (REVISION, "card", "", "", "01m8mvtw392my0qm9g-card-tqax54gwyetm"),
        (REVISION, "card", "q50", "", "01m8mvtw392my0qm9g-card-tqax5c75kejn"),
        (REVISION, "icon", "aspect1x1", "", "01m8mvtw392my0qm9g-icon-hcsgs2901eba"),
        (REVISION, "icon", "aspect1x1", "040025", "01m8mvtw392my0qm9g-icon-040025-hcsgs6k8hg6x"),
        (REVISION, "card", "", "10054089", "01m8mvtw392my0qm9g-card-10054089-051sfva36ka3"),
        (REVISION, "icon", "aspect1x1", "10054089040025", "01m8mvtw392my0qm9g-icon-10054089040025-drpnk8k81n5c"),
        (f"{REVISION}-sandbox", "card", "", "", "01m8mvtw392my0qm9g-card-46apd1w9pncw-sandbox"),
        (EARLIER, "card", "", "", "01m7xvw392my-card-8g6c3d2y0pv6"),
    ],
)
def test_names_do_not_change(revision: str, name: str, look: str, framing: str, stem: str) -> None:
    """Names are the same as in the first version that made them, because files have them."""
    found = Framing.parse(framing)
    assert found is not None
    assert stem_of(revision, name, look, found) == stem


def test_the_secret_part_of_a_revision() -> None:
    """At least 14 characters, 70 random bits, of each revision stay secret; a shorter revision is rejected."""
    assert public_of(make_revision()) is not None
    for revision in (REVISION, EARLIER, "x" * 22, "x" * 64, f"{REVISION}-sandbox"):
        public = public_of(revision)
        assert public is not None
        assert revision.startswith(public)
        assert len(revision.removesuffix("-sandbox")) - len(public) >= 14
        assert stem_of(revision, "card", "").startswith(f"{public}-card-")
    assert public_of("x" * 21) is None
    with pytest.raises(InvalidKeyError, match="expected at least 22 characters"):
        stem_of("x" * 21, "card", "")


@given(
    revision=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{21,47}", fullmatch=True),
    name=st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True),
    framing=FRAMINGS,
    sandbox=st.booleans(),
)
def test_names_are_parsed(revision: str, name: str, framing: Framing, sandbox: bool) -> None:
    """Parsing a name returns its parts, and a file can have the name in the layout of all images."""
    revision = revision.removesuffix("-sandbox").ljust(22, "x") + "-sandbox" * sandbox
    stem = stem_of(revision, name, "q50", framing)
    found = DerivedName.parse(stem)
    assert found is not None
    assert (found.public, found.name, found.framing, found.sandbox) == (public_of(revision), name, framing, sandbox)
    assert found.belongs_to(revision)
    key = ImageKey(derived_type("photo"), None, 320, 240, "image/webp", stem)
    assert key.file_name() == f"{path_of('photo', stem)}.320x240.webp"
    assert key.file_name().startswith(f"{path_of('photo', found.public)}-")
    assert parse_path(key.file_name()) is not None


def test_names_are_made_with_the_whole_revision() -> None:
    """The public part alone is not enough to make a valid name, not even of an outdated recipe."""
    other = REVISION[:-1] + "f"
    mine, theirs = (stem_of(revision, "card", "") for revision in (REVISION, other))
    assert mine[:24] == theirs[:24]
    assert mine != theirs
    found = DerivedName.parse(mine)
    assert found is not None
    assert found.belongs_to(REVISION)
    assert not found.belongs_to(other)
    assert not found.belongs_to(f"{REVISION}-sandbox")
    assert not found.belongs_to("01m8mvtw392my0qm9")


def test_a_name_of_another_recipe_is_recognised() -> None:
    """A name that was made with another recipe belongs to its image, but the name of another thumbnail does not."""
    old = DerivedName.parse(stem_of(REVISION, "card", "q50"))
    assert old is not None
    assert old.belongs_to(REVISION)
    forged = DerivedName.parse(stem_of(REVISION, "card", "").replace("card", "full"))
    assert forged is not None
    assert not forged.belongs_to(REVISION)


@pytest.mark.parametrize("issued", [WHOLE, Framing((10, 5, 55, 90)), Framing((10, 5, 55, 90), (40, 25))])
def test_a_name_is_for_one_crop_box(issued: Framing) -> None:
    """The part that an editor has cut off cannot be requested by changing, removing or adding a box."""
    public, name, *_, tag = stem_of(REVISION, "card", "q50", issued).split("-")
    for box in (None, (10, 5, 55, 90), (0, 5, 55, 90), (10, 5, 55, 91)):
        for point in (None, (40, 25), (0, 0)):
            text = Framing(box, point).text
            changed = DerivedName.parse(f"{public}-{name}-{text}-{tag}" if text else f"{public}-{name}-{tag}")
            assert changed is not None
            assert changed.belongs_to(REVISION) == (box == issued.box)


def test_the_longest_names_are_valid() -> None:
    """A name of 16 characters, a box, a point and the mark of an overlay fit into a file name."""
    stem = stem_of(f"{REVISION}-sandbox", "x" * 16, "", Framing((10, 5, 55, 90), (40, 25)))
    assert len(stem) == 71
    name = ImageKey("photo.t", None, 10, 10, "image/webp", stem).file_name()
    assert revision_of(name) == stem
    assert parse_path(name) is not None
    with pytest.raises(InvalidKeyError, match="expected 8 to 64 letters"):
        ImageKey("photo", None, 10, 10, "image/webp", stem)
    with pytest.raises(InvalidKeyError, match="expected 8 to 72 letters"):
        ImageKey("photo.t", None, 10, 10, "image/webp", "x" * 73)


@pytest.mark.parametrize(
    "revision",
    [
        REVISION,
        "",
        "01m8mvtw392my0qm9g-card",
        "01m8mvtw392my0qm9g-card-tqax5kmmz30",
        "01m8mvtw392my0qm9g-Card-tqax5kmmz30d",
        "01m8mvtw392my0qm9g-card-04002-tqax5kmmz30d",
        "01m8mvtw392my0qm9g-card-101000-tqax5kmmz30d",
        "01m8mvtw392my0qm9g-card-90054089-tqax5kmmz30d",
        "01m8mvtw392my0qm9g-card-1005408904002-tqax5kmmz30d",
        "short-card-tqax5kmmz30d",
        "01m8mvtw392my0qm9gx-card-tqax5kmmz30d",
        "01m8mvtw392my0qm9g-card-tqax5kmmz30d-other",
    ],
)
def test_invalid_names(revision: str) -> None:
    """A revision that no thumbnail can have is rejected."""
    assert DerivedName.parse(revision) is None


@pytest.mark.parametrize("object_id", [0, 7, 2**35 - 1])
@pytest.mark.parametrize("mimetype", ["image/jpeg", "application/pdf"])
def test_originals_of_the_predecessor(object_id: int, mimetype: str) -> None:
    """The public part identifies the file; a name of another image does not belong to it."""
    key = ImageKey("photo", object_id, 1, 2**20 - 1, mimetype)
    revision = legacy_revision(key)
    assert revision is not None
    public = public_of(revision)
    assert public is not None
    assert legacy_key("photo", public) == key
    found = DerivedName.parse(stem_of(revision, "card", ""))
    assert found is not None
    assert found.belongs_to(revision)
    other = legacy_revision(ImageKey("photo", object_id, 2, 2**20 - 1, mimetype))
    assert other is not None
    assert not found.belongs_to(other)


def test_originals_of_the_predecessor_without_a_name() -> None:
    """Identifiers of UUIDs are too large, and other public parts are not mistaken for such a name."""
    for key in (
        ImageKey("photo", 2**35, 1, 1, "image/jpeg"),
        ImageKey("photo", -1, 1, 1, "image/jpeg"),
        ImageKey("photo", None, 1, 1, "image/jpeg"),
        ImageKey("photo", 1, 2**20, 1, "image/jpeg"),
        ImageKey("photo", 1, 1, 1, "image/avif"),
    ):
        assert legacy_revision(key) is None
    for public in ("01m8mvtw392my0qm9g", "o", "o" * 17, f"o{'0' * 16}", f"o{'1' * 15}z"):
        assert legacy_key("photo", public) is None


def test_the_object_type_of_thumbnails() -> None:
    """The object type is that of the originals with a suffix of two characters, which can be removed again."""
    assert derived_type("photo") == "photo.t"
    assert original_type("photo.t") == "photo"
    assert original_type("photo.t.t") == "photo.t"
    assert [original_type(other) for other in ("photo", ".t", "t")] == [None, None, None]
    assert picture_of("photo", "01m8mvtw392my0qm9g") == "photo.t/01m8mvtw392my0qm9g"
