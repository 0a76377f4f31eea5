"""Shows the store's files: those of pictures, to be kept for ever, and nothing else."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any

from fastapi import HTTPException, Response
from fastapi.staticfiles import StaticFiles

from aioimageattach.key import EXTENSIONS

TYPES = {extension: mimetype for mimetype, extension in EXTENSIONS.items() if mimetype.startswith("image/")}

HEADERS = {
    # A file is never overwritten: a picture that replaces another has another address.
    "Cache-Control": "public, max-age=31536000, immutable",
    # Strangers sent these bytes: a browser shall take them for the picture they were found to be, and nothing else.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


class StoredFiles(StaticFiles):
    """The directory of a store, without its unfinished files and whatever else may lie there."""

    async def get_response(self, path: str, scope: Any) -> Response:
        """Answer with the file of that name, if it may be shown."""
        parts = PurePath(path)
        if "\0" in path or parts.suffix not in TYPES or any(part.startswith(".") for part in parts.parts):
            raise HTTPException(404)
        return await super().get_response(path, scope)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Any, status_code: int = 200
    ) -> Response:
        """Say what the file is by the name the store gave it, and how long it stays that."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        if "content-type" in response.headers:
            response.headers["Content-Type"] = TYPES[PurePath(full_path).suffix]
        return response
