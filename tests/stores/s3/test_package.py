"""The names of the package. Those that need aiohttp are loaded on first access."""

from __future__ import annotations

import pytest

from aioimageattach.stores import s3


@pytest.mark.parametrize("name", s3.__all__)
def test_each_name_exists(name: str) -> None:
    """Each name can be accessed, whether or not its module is loaded lazily."""
    assert getattr(s3, name) is not None


def test_an_unknown_name() -> None:
    """An unknown name raises AttributeError."""
    with pytest.raises(AttributeError, match=r"module 'aioimageattach\.stores\.s3' has no attribute 'S4Store'"):
        s3.S4Store  # noqa: B018 - reading it is what is tested
