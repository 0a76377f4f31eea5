"""The names of the package; those that need aiohttp are loaded on first access."""

from __future__ import annotations

import pytest

from aioimageattach.stores import s3


@pytest.mark.parametrize("name", s3.__all__)
def test_each_name_is_there(name: str) -> None:
    """Whether it is loaded at once or late."""
    assert getattr(s3, name) is not None


def test_another_name_is_not() -> None:
    """The error is the usual one."""
    with pytest.raises(AttributeError, match=r"module 'aioimageattach\.stores\.s3' has no attribute 'S4Store'"):
        s3.S4Store  # noqa: B018 - reading it is what is tested
