"""Iteration over the files below a directory, in order of name. All calls block."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from ...exc import InvalidKeyError
from ...store import ObjectInfo
from ._paths import SIDE_PREFIX, check_path
from ._tree import Tree

__all__ = ["info", "unfinished", "walk"]


_LOST = "lost+found"  # a directory of the file system at the root of a volume, readable only by its owner


def info(name: str, status: os.stat_result) -> ObjectInfo:
    """Return the :class:`ObjectInfo` of a file."""
    return ObjectInfo(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def walk(tree: Tree, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    """Iterate over the files whose names start with ``prefix`` and sort after ``start_after``, ordered by name.

    The entries of the current directory and its ancestors are held in memory. No descriptor stays open between two
    files.
    """
    top = prefix.rpartition("/")[0]
    if top and not _is_path(top):
        return
    waiting = [_scan(tree, top, prefix, start_after)]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif isinstance(found, str):
            waiting.append(_scan(tree, found, prefix, start_after))
        else:
            yield found


def unfinished(tree: Tree, before: datetime, prefix: str = "") -> Iterator[str]:
    """Iterate over the unfinished files of killed puts below a prefix that were last written before a time."""
    waiting = [prefix.rpartition("/")[0]]
    while waiting:
        path = waiting.pop()
        above = f"{path}/" if path else ""
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            tree.open(path) as directory,
            directory.scan() as entries,
        ):
            for entry in entries:
                name = above + entry.name
                if not (f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/")):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if _is_path(name):
                        waiting.append(name)
                elif entry.name.startswith(SIDE_PREFIX) and entry.is_file(follow_symlinks=False):
                    status = _status(entry)
                    if status is not None and status.st_mtime < before.timestamp():
                        yield name


def _scan(tree: Tree, path: str, prefix: str, start_after: str) -> Iterator[ObjectInfo | str]:
    """Return the files of one directory and the paths of its subdirectories, in order of name."""
    found: list[tuple[str, ObjectInfo | str]] = []
    above = f"{path}/" if path else ""
    try:
        with tree.open(path) as directory, directory.scan() as entries:
            for entry in entries:
                name = above + entry.name
                if name == _LOST:
                    continue
                below = f"{name}/"
                if entry.is_dir(follow_symlinks=False):
                    past = start_after > below and not start_after.startswith(below)
                    if not past and (below.startswith(prefix) or prefix.startswith(below)) and _is_path(name):
                        found.append((below, name))
                elif entry.is_file(follow_symlinks=False) and name.startswith(prefix) and name > start_after:
                    status = _status(entry)
                    if status is not None and _is_path(name):
                        found.append((name, info(name, status)))
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, NotADirectoryError) and error.filename == tree.root:
            raise
    found.sort(key=lambda pair: pair[0])
    return (what for _, what in found)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_path(name: str) -> bool:
    try:
        check_path(name)
    except InvalidKeyError:
        return False
    return True
