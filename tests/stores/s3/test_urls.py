"""Encoding of keys and queries, and parsing of URLs."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach.exc import InvalidKeyError
from aioimageattach.stores.s3._signing.urls import quote_key, quote_query, split_url


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a/b.png", "a/b.png"),
        ("//a//", "//a//"),
        ("a b+c", "a%20b%2Bc"),
        ("a%2Fb", "a%252Fb"),
        ("#?&=~", "%23%3F%26%3D~"),
        ("é/画像", "%C3%A9/%E7%94%BB%E5%83%8F"),
        ("e\u0301", "e%CC%81"),
        ("🖼", "%F0%9F%96%BC"),
        ("a\r\nb", "a%0D%0Ab"),
        (".../a.../.a", ".../a.../.a"),
        ("x" * 1024, "x" * 1024),
    ],
)
def test_a_key_is_encoded_once(key: str, expected: str) -> None:
    """All characters except unreserved ones and slashes are percent-encoded."""
    assert quote_key(key) == expected


@pytest.mark.parametrize("key", ["", ".", "..", "a/../b", "./a", "a/.", "é" * 513, "a\ud800"])
def test_invalid_keys(key: str) -> None:
    """Keys that are empty, too long, not encodable, or have a segment that proxies would resolve are rejected."""
    with pytest.raises(InvalidKeyError, match=r"^key: "):
        quote_key(key)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_an_encoded_key_is_one_path_and_can_be_decoded(key: str) -> None:
    """The URL of any key can be parsed, has no query, and decodes to the key."""
    try:
        quoted = quote_key(key)
    except InvalidKeyError:
        assert {".", ".."} & set(key.split("/"))
        return
    assert unquote(quoted) == key
    assert split_url(f"https://h.test/{quoted}") == ("https://h.test", "h.test", f"/{quoted}", "")


@pytest.mark.parametrize("params", [{"a b": "c+d", "é": "", "x": "~/"}, [("a b", "c+d"), ("é", ""), ("x", "~/")]])
def test_a_query_is_encoded_as_it_is_signed(params: dict[str, str] | list[tuple[str, str]]) -> None:
    """A space is ``%20``, an empty value has its ``=``, and a slash is encoded."""
    assert quote_query(params) == "a%20b=c%2Bd&%C3%A9=&x=~%2F"
    assert quote_query({"uploads": None, "a b": None, "x": "y"}) == "uploads&a%20b&x=y"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h.test/a",
        "ftp://h.test/a",
        "https:///a",
        "https://user:secret@h.test/a",
        "https://h.test/a#secret",
        "https://h.test/a b",
        "https://h.test/é",
        "https://h.test/a\r\nX: secret",
        "https://h.test/a\n",
        "https://ex ample/a",
        "HTTPS://h.test/a",
    ],
)
def test_a_url_that_would_be_rewritten_is_refused(url: str) -> None:
    """The message does not repeat the URL, which may contain a password or a signature."""
    with pytest.raises(ValueError, match=r"^url: expected") as caught:
        split_url(url)
    assert "secret" not in str(caught.value)
