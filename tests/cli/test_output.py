"""How numbers, times and values are written."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from aioimageattach.cli.output import clock, plain, size, spell


@dataclass
class Numbers:
    total: int | None = 10
    done: int = 4
    copied: int = 0
    left_out: int = 1200
    bytes: int = 0
    removed_bytes: int = 2_500_000
    position: str = "a/b"


def test_what_is_not_zero_is_said() -> None:
    """Numbers by their names, bytes in their unit."""
    assert spell(Numbers(), "done") == "1,200 left out, removed 2.5 MB"
    assert spell(Numbers(bytes=12, left_out=0, removed_bytes=0)) == "4 done, 12 B"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (22_240, "22.2 kB"), (4_321_000, "4.32 MB"), (5e12, "5,000.0 GB")],
)
def test_bytes_have_units(number: float, text: str) -> None:
    """Those of disks, in three digits."""
    assert size(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00:00"), (61, "0:01:01"), (36_000.6, "10:00:01")])
def test_times_are_those_of_a_clock(seconds: float, text: str) -> None:
    """Hours, minutes, seconds."""
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: (True, None, 1.5)}, {"1": [True, None, 1.5]}),
        (Numbers, "Numbers"),
        (datetime(2026, 5, 17, tzinfo=UTC), "2026-05-17T00:00:00+00:00"),
        (ValueError("no"), {"type": "ValueError", "message": "no"}),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_json_can_hold_every_value(value: Any, expected: object) -> None:
    """As what it is, or as a text."""
    assert plain(value) == expected
