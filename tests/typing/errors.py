"""Types of errors, keys and names. Checked, never run."""

from __future__ import annotations

from typing import assert_type

from aioimageattach.exc import (
    ImageAttachError,
    ImageTooLargeError,
    StoreFileNotFoundError,
    StorePermissionError,
    StoreUnavailableError,
    UnsupportedImageError,
)
from aioimageattach.key import ImageKey, make_revision

key = ImageKey("user-picture", 1, 640, 480, "image/jpeg", make_revision())
assert_type(key.object_type, str)
assert_type(key.object_id, int | None)
assert_type(key.revision, str | None)
assert_type(make_revision(), str)
assert_type(key.file_name(), str)
key.width = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
ImageKey("user-picture", "1", 640, 480, "image/jpeg")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

try:
    pass
except StoreFileNotFoundError as error:
    assert_type(error.store, str | None)
    assert_type(error.name, str | None)
    missing: FileNotFoundError = error
except StorePermissionError as error:
    assert_type(error.status, int | None)
    assert_type(error.code, str | None)
except StoreUnavailableError as error:
    assert_type(error.attempts, int)
    unreachable: ConnectionError = error
except UnsupportedImageError as error:
    assert_type(error.allowed, frozenset[str])
except ImageTooLargeError as error:
    assert_type(error.limit, float | None)
    assert_type(error.actual, float | None)
    bad: ValueError = error
except ImageAttachError as error:
    root: Exception = error
