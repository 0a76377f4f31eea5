"""The ``Content-Disposition`` header of downloads."""

from __future__ import annotations

from email.message import EmailMessage
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._http.disposition import MAX_FILENAME, attachment


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("cat.jpg", "attachment; filename=\"cat.jpg\"; filename*=UTF-8''cat.jpg"),
        ("a cat.jpg", "attachment; filename=\"a cat.jpg\"; filename*=UTF-8''a%20cat.jpg"),
        ("Кот.jpg", "attachment; filename=\"___.jpg\"; filename*=UTF-8''%D0%9A%D0%BE%D1%82.jpg"),
        ('"%41;x=y', "attachment; filename=\"__41;x=y\"; filename*=UTF-8''%22%2541%3Bx%3Dy"),
        ("it's 1,2*3", "attachment; filename=\"it's 1,2*3\"; filename*=UTF-8''it%27s%201%2C2%2A3"),
        ("!#$&+^`|~.", "attachment; filename=\"!#$&+^`|~.\"; filename*=UTF-8''!#$&+^`|~."),
    ],
)
def test_names(filename: str, expected: str) -> None:
    """The header contains an ASCII fallback, and the name encoded as in RFC 8187."""
    assert attachment(filename) == expected


@pytest.mark.parametrize(
    "filename",
    ["", ".", " .. ", "a/b", "..\\a", "a\r\nSet-Cookie: b=c", "a\x00", "a\x7f", "\ud800", "gpj.\u202eexe", b"cat.jpg"],
)
def test_invalid_file_names(filename: str) -> None:
    """Paths, line feeds and invisible characters are rejected."""
    with pytest.raises(ValueError, match=r"download: expected a file name such as 'cat\.jpg'"):
        attachment(filename)


def test_a_name_that_is_too_long() -> None:
    """A name that exceeds the 255 bytes of most file systems is rejected."""
    assert attachment("x" * MAX_FILENAME)
    with pytest.raises(ValueError, match="at most 200 characters, got 201"):
        attachment("x" * (MAX_FILENAME + 1))


@given(st.text(max_size=MAX_FILENAME))
def test_every_valid_name_can_be_parsed(filename: str) -> None:
    """No valid name can end the header or add a parameter, and an independent parser returns the same name."""
    try:
        value = attachment(filename)
    except ValueError:
        return
    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') == 2
    assert unquote(value.partition("filename*=UTF-8''")[2]) == filename
    message = EmailMessage()
    message["Content-Disposition"] = f"attachment; {value.rpartition('; ')[2]}"
    found = str(message.get_filename())
    assert (message.get_content_disposition(), found.strip()) == ("attachment", filename.strip())  # it removes spaces
