"""A store that keeps files in memory, for tests and examples."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from .._names import check_name
from .._telemetry import GET, PUT
from ..exc import InvalidKeyError, StoreError, StoreFileExistsError, StoreFileNotFoundError
from ..file import FileProxy, SeekableFileProxy, Source
from ..key import ImageKey, guess_extension
from ..store import KeyedStore, ObjectInfo

__all__ = ["MemoryStore"]


class MemoryStore(KeyedStore):
    """A store that keeps files in memory until the process ends. Tasks and threads may share it.

    Args:
        base_url: URL to which names are appended, with or without a slash at the end.
    """

    def __init__(self, base_url: str = "memory:/") -> None:
        self.base_url: str = base_url if base_url.endswith("/") else f"{base_url}/"
        self._files: dict[str, tuple[bytes, datetime]] = {}

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Read the source to its end and keep its bytes under a name that no file has yet."""
        check_name(name)
        with PUT(store="memory"):
            blob = await FileProxy(data).read()
            mine = (blob, datetime.now(UTC))
            if self._files.setdefault(name, mine) is not mine:  # atomic, so threads may share the store
                raise _taken(self, name)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> SeekableFileProxy:
        """Open a file, or its bytes from ``start`` up to but not including ``end``."""
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"expected 0 <= start <= end, got start={start} and end={end}")
        with GET(store="memory"):
            return SeekableFileProxy(io.BytesIO(self._found(name)[0][start:end]))

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time."""
        blob, modified_at = self._found(name)
        return ObjectInfo(name, len(blob), modified_at)

    async def delete_object(self, name: str) -> None:
        """Delete a file; a missing one is not an error."""
        check_name(name)
        self._files.pop(name, None)

    async def move_objects(self, names: Mapping[str, str]) -> dict[str, StoreError]:
        """Rename many files; return the error of each that could not be renamed, by its old name."""
        failed: dict[str, StoreError] = {}
        for old, new in names.items():
            try:
                file = self._found(old)
                if self._files.setdefault(check_name(new), file) is not file:
                    raise _taken(self, new)
                self._files.pop(old, None)
            except StoreError as error:
                failed[old] = error
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over a snapshot of the files whose names begin with ``prefix``, in order of name."""
        for name, (blob, modified_at) in sorted(self._files.copy().items()):
            if name.startswith(prefix) and name > start_after:
                yield ObjectInfo(name, len(blob), modified_at)

    def url_of(self, name: str) -> str:
        """Return the URL of a name. No I/O."""
        return self.base_url + quote(check_name(name), safe="/")

    def legacy_name(self, key: ImageKey) -> str:
        """Return ``object_type/object_id/WIDTHxHEIGHT.EXT``.

        Raises:
            InvalidKeyError: The key has no ``object_id``.
        """
        if key.object_id is None:
            raise InvalidKeyError(f"key: expected a revision or an object_id, got {key!r}", store=repr(self))
        return f"{key.object_type}/{key.object_id}/{key.width}x{key.height}{guess_extension(key.mimetype)}"

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._files)} files>"

    def _found(self, name: str) -> tuple[bytes, datetime]:
        check_name(name)
        found = self._files.get(name)
        if found is None:
            raise StoreFileNotFoundError(f"the file {name!r} does not exist", store=repr(self), name=name)
        return found


def _taken(store: MemoryStore, name: str) -> StoreFileExistsError:
    return StoreFileExistsError(f"{name!r} already exists; a file is never overwritten", store=repr(store), name=name)
