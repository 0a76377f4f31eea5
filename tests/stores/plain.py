"""A store that implements only the four methods, as a third party may write it."""

from __future__ import annotations

import io

from aioimageattach.exc import StoreFileNotFoundError
from aioimageattach.file import AsyncFile, FileProxy, SeekableFileProxy, Source
from aioimageattach.store import Store


class PlainStore(Store):
    """A store that keeps files in a dictionary, under names that contain all fields of the key."""

    def __init__(self, base_url: str = "plain:/") -> None:
        self.base_url = base_url
        self.files: dict[str, bytes] = {}

    def _name(self, *parts: object) -> str:
        return "/".join(map(str, parts))

    async def put_file(
        self,
        file: Source,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        reproducible: bool,
        *,
        revision: str | None = None,
    ) -> None:
        name = self._name(object_type, object_id, width, height, mimetype, revision)
        self.files[name] = await FileProxy(file).read()

    async def get_file(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> AsyncFile:
        name = self._name(object_type, object_id, width, height, mimetype, revision)
        if name not in self.files:
            raise StoreFileNotFoundError(f"the file {name!r} does not exist", store=repr(self), name=name)
        return SeekableFileProxy(io.BytesIO(self.files[name]))

    def get_url(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> str:
        return self.base_url + self._name(object_type, object_id, width, height, mimetype, revision)

    async def delete_file(
        self,
        object_type: str,
        object_id: int | None,
        width: int,
        height: int,
        mimetype: str,
        *,
        revision: str | None = None,
    ) -> None:
        self.files.pop(self._name(object_type, object_id, width, height, mimetype, revision), None)

    def __repr__(self) -> str:
        return f"<PlainStore of {len(self.files)} files>"
