"""A database and files as SQLAlchemy-ImageAttach 1.1.0 leaves them, made without code of this library.

The tables are those that its metadata creates on each database, the rows those that its sessions insert, and the file
names follow its two layouts, which are implemented here independently on purpose. The real library, on SQLAlchemy 1.3
with Wand, was run with SQLite, PostgreSQL and MariaDB and the same owners and photographs: its tables, rows and file
names were identical to those made here.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests import photos

MADE_AT = datetime(2015, 6, 1, 12, 34, 56, tzinfo=UTC)
"""When every row was created; SQLite and MySQL store neither a time zone nor fractions of a second."""
BIG = 2**53 + 1
ITEM = uuid.UUID("5a3c1d60-1c5e-4b5e-9f0e-0a1b2c3d4e5f")
TABLES = ("user_picture", "post_photo", "item_image", "article_cover")

NAMES: dict[str, dict[str, str]] = {
    "context": {
        "ContextError": "",
        "LocalProxyStore": "",
        "context_stacks": "",
        "current_store": "",
        "get_current_context_id": "",
        "get_current_store": "",
        "pop_store_context": "",
        "push_store_context": "",
        "store_context": "",
    },
    "entity": {
        "VECTOR_TYPES": "",
        "BaseImageQuery": "",
        "BaseImageSet": "find_thumbnail from_blob from_file from_raw_file generate_thumbnail locate make_blob "
        "open_file original require_original",
        "Image": "created_at height identity_attributes identity_map locate make_blob mimetype object_id object_type "
        "open_file original size width",
        "ImageSet": "",
        "ImageSubset": "",
        "MultipleImageSet": "get_image_set image_sets",
        "SingleImageSet": "",
        "image_attachment": "",
    },
    "file": {
        "FileProxy": "close next read readline readlines xreadlines",
        "ReusableFileProxy": "",
        "SeekableFileProxy": "seek tell",
    },
    "migration": {"MigrationPlan": "execute", "migrate": "", "migrate_class": ""},
    "store": {"Store": "delete delete_file get_file get_url locate open put_file store"},
    "stores.fs": {
        "BaseFileSystemStore": "",
        "FileSystemStore": "",
        "HttpExposedFileSystemStore": "wsgi_middleware",
        "StaticServerMiddleware": "",
        "guess_extension": "",
    },
    "stores.s3": {
        "AuthMechanismError": "",
        "BASE_URL_FORMAT": "",
        "DEFAULT_MAX_AGE": "",
        "S3Request": "",
        "S3RequestV2": "",
        "S3RequestV4": "",
        "S3SandboxStore": "DELETED_MARK_MIMETYPE overriding underlying",
        "S3Store": "bucket max_age max_retry prefix public_base_url region",
    },
    "util": {"append_docstring": "", "append_docstring_attributes": "", "get_minimum_indent": ""},
    "version": {"SQLA_COMPAT_VERSION": "", "SQLA_COMPAT_VERSION_INFO": "", "VERSION": "", "VERSION_INFO": ""},
}
"""The public API according to its manual: the names of each module, and the members of each class."""

_WORDS = {
    "sqlite": {
        "big": "INTEGER",
        "bool": "BOOLEAN",
        "serial": "INTEGER NOT NULL",
        "big_serial": "INTEGER NOT NULL",
        "time": "DATETIME",
        "user": '"user"',
        "uuid": "CHAR(32)",
    },
    "postgresql": {
        "big": "BIGINT",
        "bool": "BOOLEAN",
        "serial": "SERIAL NOT NULL",
        "big_serial": "BIGSERIAL NOT NULL",
        "time": "TIMESTAMP WITH TIME ZONE",
        "user": '"user"',
        "uuid": "UUID",
    },
    "mariadb": {
        "big": "BIGINT",
        "bool": "BOOL",
        "serial": "INTEGER NOT NULL AUTO_INCREMENT",
        "big_serial": "BIGINT NOT NULL AUTO_INCREMENT",
        "time": "DATETIME",
        "user": "user",
        "uuid": "CHAR(32)",
    },
}
_OWNERS = (
    "CREATE TABLE {user} (id {big_serial}, PRIMARY KEY (id))",
    "CREATE TABLE post (id {serial}, PRIMARY KEY (id))",
    "CREATE TABLE item (id {uuid} NOT NULL, PRIMARY KEY (id))",
    "CREATE TABLE article (slug VARCHAR(60) NOT NULL, PRIMARY KEY (slug))",
)
_IMAGES = {
    "user_picture": ("user_id {big} NOT NULL", "user_id", "FOREIGN KEY(user_id) REFERENCES {user} (id)"),
    "post_photo": (
        "post_id INTEGER NOT NULL, order_index INTEGER NOT NULL",
        "post_id, order_index",
        "FOREIGN KEY(post_id) REFERENCES post (id)",
    ),
    "item_image": ("item_id {uuid} NOT NULL", "item_id", "FOREIGN KEY(item_id) REFERENCES item (id)"),
    "article_cover": (
        "slug VARCHAR(60) NOT NULL, kind VARCHAR(20) NOT NULL",
        "slug",
        "FOREIGN KEY(slug) REFERENCES article (slug)",
    ),
}
# The columns of the mixin came first, also in the primary key.
_TABLE = """
CREATE TABLE {name} (
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    mimetype VARCHAR(255) NOT NULL,
    original {bool} NOT NULL,
    created_at {time} NOT NULL,
    {columns},
    PRIMARY KEY (width, height, {key}),
    {check}{foreign}
)
"""


@dataclass(frozen=True, slots=True)
class OldImage:
    """A row and its file.

    Attributes:
        table: The name of the table.
        key: The columns besides those of the mixin.
        object_id: The object id that the old class calculated.
        suffix: The end of the file name.
    """

    table: str
    key: dict[str, Any]
    object_type: str
    object_id: int
    size: tuple[int, int]
    mimetype: str
    suffix: str
    original: bool
    blob: bytes

    @property
    def directory_name(self) -> str:
        """Return the path below the directory of the old ``FileSystemStore``."""
        low, high = str(self.object_id % 1000), str(self.object_id // 1000)
        width, height = self.size
        return "/".join([self.object_type, low, high, f"{self.object_id}.{width}x{height}{self.suffix}"])

    @property
    def bucket_name(self) -> str:
        """Return the key below the prefix of the old ``S3Store``."""
        width, height = self.size
        return "/".join([self.object_type, str(self.object_id), f"{width}x{height}{self.suffix}"])


def public_names(module: str) -> set[str]:
    """Return the public names of a module of the old library, with members after a dot."""
    return {
        name
        for item, members in NAMES[module].items()
        for name in (item, *(f"{item}.{one}" for one in members.split()))
    }


def paired(a: int, b: int) -> int:
    """Return the number that the manual of the old library calculates from two numbers."""
    return (a + b) * (a + b) + a


def hashed(slug: str) -> int:
    """Return the number that the manual of the old library calculates from a string."""
    return int(hashlib.sha1(slug.encode()).hexdigest(), 16)


@cache
def images() -> tuple[OldImage, ...]:
    """Return what the old library has stored, originals before their thumbnails."""
    jpeg = ("image/jpeg", ".jpe")
    small = photos.opened("chelsea", (200, 133))
    # It truncated the other side: 300 * 150 / 451 is 99.8.
    thumbnail = {
        size: photos.saved(photos.opened(name, size), "JPEG")
        for name, size in (("chelsea", (150, 99)), ("coffee", (150, 100)), ("camera", (100, 100)))
    }
    cover, issue = {"slug": "first-steps", "kind": "article"}, {"slug": "issue-42", "kind": "issue"}

    def user(number: int, size: tuple[int, int], kind: tuple[str, str], original: bool, blob: bytes) -> OldImage:
        return OldImage("user_picture", {"user_id": number}, "user-picture", number, size, *kind, original, blob)

    def photo(index: int, size: tuple[int, int], original: bool, blob: bytes) -> OldImage:
        key = {"post_id": 3, "order_index": index}
        return OldImage("post_photo", key, "post-photo", paired(3, index), size, *jpeg, original, blob)

    return (
        user(1, (451, 300), jpeg, True, photos.photo("chelsea")),
        user(1, (150, 99), jpeg, False, thumbnail[150, 99]),
        user(1234, (600, 400), jpeg, True, photos.photo("coffee")),
        user(1234, (150, 100), jpeg, False, thumbnail[150, 100]),
        user(BIG, (640, 427), jpeg, True, photos.photo("rocket")),
        # The suffix if the system knew no extension, as for WebP in Python before 3.13.
        user(7, (200, 133), ("image/webp", "None"), True, photos.saved(small, "WEBP")),
        user(8, (200, 133), ("image/png", ".png"), True, photos.saved(small, "PNG")),
        user(9, (200, 133), ("image/gif", ".gif"), True, photos.saved(small, "GIF")),
        photo(1, (512, 512), True, photos.photo("astronaut")),
        photo(2, (512, 512), True, photos.photo("camera")),
        photo(2, (100, 100), False, thumbnail[100, 100]),
        OldImage(
            "item_image", {"item_id": ITEM}, "item-image", ITEM.int, (1000, 872), *jpeg, True, photos.photo("hubble")
        ),
        OldImage(
            "article_cover", cover, "cover", hashed("first-steps"), (600, 400), *jpeg, True, photos.photo("coffee")
        ),
        OldImage("article_cover", issue, "issue-cover", 42, (451, 300), *jpeg, True, photos.photo("chelsea")),
    )


def statements(database: str) -> Sequence[str]:
    """Return the statements that create the tables; ``database`` is ``sqlite``, ``postgresql`` or ``mariadb``."""
    words = _WORDS[database]
    made = [owner.format(**words) for owner in _OWNERS]
    for name, (columns, key, foreign) in _IMAGES.items():
        check = "" if database == "postgresql" else "CHECK (original IN (0, 1)), "
        made.append(
            _TABLE.format(
                name=name,
                columns=columns.format(**words),
                key=key,
                check=check,
                foreign=foreign.format(**words),
                **words,
            )
        )
    return made


async def fill(connection: AsyncConnection, database: str) -> None:
    """Make the tables and insert the owners and their images."""
    for statement in statements(database):
        await connection.execute(text(statement))
    quoted = _WORDS[database]["user"]
    for owner, column, values in (
        (quoted, "id", [1, 1234, BIG, 7, 8, 9]),
        ("post", "id", [3]),
        ("item", "id", [_plain(ITEM, database)]),
        ("article", "slug", ["first-steps", "issue-42"]),
    ):
        for value in values:
            await connection.execute(text(f"INSERT INTO {owner} ({column}) VALUES (:value)"), {"value": value})
    made_at = {"sqlite": "2015-06-01 12:34:56", "postgresql": MADE_AT, "mariadb": "2015-06-01 12:34:56"}[database]
    for image in images():
        row = {
            "width": image.size[0],
            "height": image.size[1],
            "mimetype": image.mimetype,
            "original": image.original,
            "created_at": made_at,
            **{name: _plain(value, database) for name, value in image.key.items()},
        }
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        await connection.execute(text(f"INSERT INTO {image.table} ({names}) VALUES ({values})"), row)


def _plain(value: Any, database: str) -> Any:
    return value.hex if isinstance(value, uuid.UUID) and database != "postgresql" else value


def write(folder: Path) -> None:
    """Write the files into a directory."""
    for image in images():
        path = folder / image.directory_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.blob)
