"""What a scope says."""

from __future__ import annotations

import pytest

from aioimageattach._http.messages import route_path


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/a/b", "", "/a/b"),
        ("/shop/a", "/shop", "/a"),
        ("/shop/a", "/shop/", "/a"),
        ("/shop", "/shop", ""),
        ("/a", "/shop", "/a"),
        ("/shopping/a", "/shop", "/shopping/a"),
        ("/a/shop/b", "/shop", "/a/shop/b"),
        ("/a", "/", "/a"),
    ],
)
def test_the_path_below_the_application(path: str, root: str, expected: str) -> None:
    """Whether the server puts the root before the path or not."""
    assert route_path({"path": path, "root_path": root}) == expected
    assert route_path({"path": expected}) == expected
