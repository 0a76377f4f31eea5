"""Small files that are expensive to parse: they are rejected, or read without the expensive parts."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.exc import ImageTooLargeError
from aioimageattach.imaging import ImageLimits
from aioimageattach.imaging._limits import KNOWN_TYPES
from tests import photos
from tests.entity.models import CountingStore, User, UserPicture
from tests.fuzz.structured import forget_peak, peak
from tests.imaging.test_bmff import claiming
from tests.imaging.test_guard import BOMBS, cubic, with_exif
from tests.imaging.test_svg import svg
from tests.imaging.test_tiff import chain

MOST_SECONDS = 2
"""CPU time, in seconds. The budget is 0.05; without limits these files take from 7 seconds to minutes."""
MOST_MEMORY = 50 * 1024
"""Memory, in KiB."""

SHADOWS = (
    '<filter id="f"><feDropShadow dx="2" dy="1" stdDeviation="30"/></filter>'
    + '<rect width="80%" height="80%" filter="url(#f)"/>' * 3_000
)

COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "EXIF that points to itself, in JPEG": (lambda: with_exif(cubic(1_500), "JPEG"), ""),
    "EXIF that points to itself, in PNG": (lambda: with_exif(cubic(3_000), "PNG"), ""),
    "EXIF that points to itself, in WebP": (lambda: with_exif(cubic(3_000), "WEBP"), ""),
    "200 TIFF directories of 3,000 entries": (lambda: chain(200, 3_000), ""),
    "2,000 TIFF directories": (lambda: chain(2_000, 0), "max_frames"),
    "a TIFF directory of 60,000 entries": (lambda: chain(1, 25_000), "entries"),
    "18,000,000 samples in an AVIF": (lambda: claiming(18_000_000), "max_frames"),
    "PNG text of 12 MB": (BOMBS["PNG text"][0], "max_metadata"),
    "PNG of 900,000 texts": (BOMBS["PNG of crumbs"][0], "max_metadata"),
    "WebP of 4,000,000 chunks": (BOMBS["WebP of crumbs"][0], "max_metadata"),
    "3,000 shadows in an SVG": (lambda: svg(SHADOWS, size=(150, 75)), "filters"),
}
"""Files, and the limit that rejects them; the others are accepted and have a thumbnail."""


@pytest.mark.parametrize("name", COSTLY)
async def test_parsing_has_a_budget(
    name: str, session: AsyncSession, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attaching such a file and making a thumbnail takes little time and memory; a rejected file leaves nothing."""
    monkeypatch.setattr(UserPicture, "__image_limits__", ImageLimits(types=KNOWN_TYPES))
    make, word = COSTLY[name]
    data = make()
    other = User(id=2)
    session.add_all([user := User(id=1), other])
    await other.picture.from_blob(photos.avif())
    await other.picture.generate_thumbnail(width=20)  # loads the decoders
    await session.commit()
    before, start = forget_peak(), time.process_time()
    if word:
        with pytest.raises(ImageTooLargeError, match=word):
            await user.picture.from_blob(data)
            await user.picture.generate_thumbnail(width=150)
    else:
        await user.picture.from_blob(data)
        assert (await user.picture.generate_thumbnail(width=7)).width == 7
    assert time.process_time() - start < MOST_SECONDS
    assert peak() - before < MOST_MEMORY
    await session.rollback()
    assert len(await store.names()) == 2
