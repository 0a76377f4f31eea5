"""The type of a file is determined by its content, not by its name, its sender or its row."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import Headers, UploadFile

from aioimageattach.exc import ImageError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import Recipe, probe, render, strip_metadata
from tests import photos
from tests.entity.models import CountingStore, Post, PostPhoto, User, UserPicture

HTML = b"<html><script>alert(1)</script></html>"
SCRIPT = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'


def upload(data: bytes, name: str, declared: str) -> UploadFile:
    return UploadFile(io.BytesIO(data), filename=name, headers=Headers({"content-type": declared}))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (SCRIPT, UnsupportedImageError),
        (SCRIPT.replace(b"<svg ", b"<!-- PNG --><svg "), UnsupportedImageError),
        (HTML, UnreadableImageError),
        (b"GIF89a/*" + bytes(9) + b"*/=1;alert(1)//" + HTML, UnreadableImageError),
        (b"%PDF-1.7\n/OpenAction << /S /JavaScript /JS (app.alert(1)) >>", UnsupportedImageError),
        (b"\x89PNG\r\n\x1a\n" + HTML, UnreadableImageError),
        (b"BM" + HTML, UnsupportedImageError),
        (b"\xff\xd8\xff" + HTML, UnreadableImageError),
        (b'<?xml version="1.0"?><?xml-stylesheet href="x.xsl"?><svg/>', UnsupportedImageError),
        (b'<?xml version="1.0"?><html/>', UnreadableImageError),
    ],
)
async def test_the_name_of_a_file_is_ignored(
    data: bytes, error: type[ImageError], session: AsyncSession, store: CountingStore
) -> None:
    """A script with the file name of an image is rejected, and leaves neither a row nor a file."""
    user = User(id=1)
    session.add(user)
    with pytest.raises(error):
        await user.picture.from_file(upload(data, "cat.png", "image/png"))
    await session.commit()
    await user.picture.load()
    assert (len(user.picture), await store.names()) == (0, [])


@pytest.mark.parametrize("declared", ["image/jpeg", "image/svg+xml", "text/html", "image/png\r\nX-Evil: 1", "\0", ""])
async def test_the_type_is_that_of_the_bytes(declared: str, session: AsyncSession, store: CountingStore) -> None:
    """Whatever type is declared, a PNG is stored and served as a PNG."""
    user = User(id=1)
    session.add(user)
    data = UploadFile(io.BytesIO(photos.png()), filename="cat.svg")
    data.headers = Headers(raw=[(b"content-type", declared.encode())])
    image = await user.picture.from_file(data)
    await session.commit()
    assert image.mimetype == "image/png"
    assert [name.rpartition(".")[2] for name in await store.names()] == ["png"]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_data_after_a_picture_is_not_in_thumbnails(file_format: str) -> None:
    """HTML after an image, or in a comment, is in no thumbnail, nor in an original whose metadata is removed."""
    options: dict[str, Any] = {"JPEG": {"comment": HTML}, "GIF": {"comment": HTML}}.get(file_format, {})
    data = photos.saved(photos.opened("chelsea", (90, 60)), file_format, **options) + HTML
    mimetype = probe(data).mimetype
    [made] = render(data, [Recipe(width=40)])
    assert HTML in data
    assert HTML not in made.blob
    assert HTML not in strip_metadata(data, mimetype)


INTERNAL = {
    "width": 1,
    "height": 1,
    "variant": "mine",
    "mimetype": "text/html",
    "original": False,
    "revision": "0" * 26,
    "byte_size": 1,
    "sha256": "0" * 64,
}


async def test_constructor_arguments_do_not_override_the_library(session: AsyncSession) -> None:
    """Constructor arguments cannot change the file that a row references, nor its owner."""
    user, post = User(id=1), Post(id=1)
    session.add_all([user, post])
    image = await user.picture.from_blob(photos.png(), extra_kwargs={**INTERNAL, "user_id": 2})
    photo = await post.photos.get_image_set(order_index=3).from_blob(
        photos.png(), extra_kwargs={**INTERNAL, "post_id": 2, "order_index": 9}
    )
    await session.commit()
    for row in (image, photo):
        assert (row.width, row.height, row.variant, row.mimetype, row.original) == (451, 300, "", "image/png", True)
        assert row.byte_size == len(photos.png())
        assert row.revision not in (None, INTERNAL["revision"])
        assert row.sha256 != INTERNAL["sha256"]
    assert list(await session.scalars(select(UserPicture.user_id))) == [1]
    assert (await session.execute(select(PostPhoto.post_id, PostPhoto.order_index))).all() == [(1, 3)]


async def test_no_argument_names_a_file_or_a_store(session: AsyncSession) -> None:
    """The attributes that determine file names cannot be passed to the constructor of a row."""
    user = User(id=1)
    session.add(user)
    for name in ("key", "identity_map", "reproducible", "object_type"):
        with pytest.raises((AttributeError, TypeError)):
            await user.picture.from_blob(photos.png(), extra_kwargs={name: "../../etc/passwd"})
    for name in ("identified", "path", "filename"):
        with pytest.raises(TypeError, match=name):
            await user.picture.from_blob(photos.png(), extra_kwargs={name: True})
    assert len(user.picture) == 0


def test_pixels_of_a_polyglot_are_its_only_content() -> None:
    """The thumbnail of a GIF that is also a program contains only its pixels."""
    program = b"/*" + b" " * 9 + b"*/=1;alert(1)//"
    picture = Image.new("P", (10_799, 1))  # the bytes of the width are "/*", so that the header begins a comment
    data = photos.saved(picture, "GIF", comment=program)
    assert data[6:8] == b"/*"
    [made] = render(data, [Recipe(width=20)])
    assert b"alert" not in made.blob
