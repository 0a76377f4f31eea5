"""Types of Pydantic models of images. Checked, never run."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from aioimageattach.schemas import ImageOut, ImageSetOut


class PhotoOut(ImageOut):
    caption: str


class UserOut(BaseModel):
    picture: ImageSetOut
    cover: ImageSetOut[PhotoOut]
    photos: list[PhotoOut]


def show(user: UserOut) -> None:
    assert_type(user.picture, ImageOut | None)
    assert_type(user.cover, PhotoOut | None)
    assert_type(user.photos, list[PhotoOut])
    assert_type(ImageOut.model_validate(user).url, str)
