"""As much of EXIF as the orientation needs (TIFF 6.0, section 2)."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["empty", "orientation_of", "orientation_only"]

_ORIENTATION: Final = 0x0112
_SHORT: Final = 3


def orientation_of(view: memoryview) -> int:
    """Return the orientation, 1 to 8, that a block of EXIF tells; 1 where it tells none that can be read."""
    if bytes(view[:6]) == b"Exif\0\0":
        view = view[6:]
    order = {b"II": "<", b"MM": ">"}.get(bytes(view[:2]))
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(f"{order}I", view, 4)
        (count,) = struct.unpack_from(f"{order}H", view, first)
        for number in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", view, first + 2 + 12 * number)
            if tag == _ORIENTATION and kind == _SHORT:
                return value if value in range(1, 9) else 1
    except struct.error:
        pass
    return 1


def orientation_only(orientation: int) -> bytes:
    """Return a block of EXIF that tells the orientation and nothing else."""
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, _ORIENTATION, _SHORT, 1, orientation, 0, 0)


def empty() -> bytes:
    """Return a block of EXIF that tells nothing."""
    return b"MM\0*\0\0\0\x08" + struct.pack(">HI", 0, 0)
