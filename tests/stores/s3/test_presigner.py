"""The lifetime of signed URLs, and the time for which they stay the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach.stores.s3._signing.presigner import Window

WEEK = 7 * 24 * 3600
NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


@given(
    st.integers(1, WEEK // 2),
    st.integers(0, WEEK // 2),
    st.integers(0, 10**6),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_the_lifetime_of_a_url(expires_in: int, width: int, later: int, name: str) -> None:
    """At any time, a URL is already valid, and for at least ``expires_in`` and at most the window longer."""
    now = NOW + timedelta(seconds=later)
    begins_at, seconds = Window(expires_in, width).begin(now, name)
    assert begins_at <= now
    assert expires_in <= (begins_at + timedelta(seconds=seconds) - now).total_seconds() + 1
    assert seconds == expires_in + width


def test_a_url_stays_the_same_for_its_window() -> None:
    """In two windows, a URL changes at most twice, a window apart; URLs of other names change at other times."""
    window = Window(600, 300)
    found = {
        name: sorted({window.begin(NOW + timedelta(seconds=n), name)[0] for n in range(600)}) for name in ("a", "b")
    }
    for begins in found.values():
        assert 2 <= len(begins) <= 3
        assert {second - first for first, second in pairwise(begins)} == {timedelta(seconds=300)}
    assert not set(found["a"]) & set(found["b"])


def test_without_a_window_each_url_is_new() -> None:
    """A window of 0 results in a new URL each time."""
    assert Window(60, 0).begin(NOW, "a") == (NOW, 60)


@pytest.mark.parametrize(("expires_in", "width"), [(60, 60), (WEEK // 2, WEEK // 2), (WEEK - 60, 60), (WEEK, 0)])
def test_the_default_window(expires_in: int, width: int) -> None:
    """The default window equals ``expires_in``, or less if the sum would exceed seven days."""
    assert Window(expires_in).width == width


@pytest.mark.parametrize(
    ("expires_in", "width", "message"),
    [
        (0, None, "url_expires_in"),
        (-1, None, "url_expires_in"),
        (WEEK + 1, None, "url_expires_in"),
        (60, -1, "url_window"),
        (60, WEEK - 59, "url_window"),
    ],
)
def test_numbers_out_of_range(expires_in: int, width: int | None, message: str) -> None:
    """Lifetimes that servers reject, of more than seven days, are rejected."""
    with pytest.raises(ValueError, match=message):
        Window(expires_in, width)
