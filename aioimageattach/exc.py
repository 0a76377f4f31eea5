"""Every error this library raises.

::

    ImageAttachError
    ├── UsageError                                  the program uses the library wrongly
    │   ├── ContextError (LookupError)              no current store, or no current request
    │   ├── DeclarationError (TypeError)            a model or a call is invalid
    │   └── NotLoadedError (RuntimeError)           rows or values are not loaded
    ├── ImageError                                  an image is rejected
    │   ├── FetchError (OSError)                    .status
    │   │   └── ForbiddenAddressError (PermissionError)
    │   ├── UnreadableImageError (ValueError)
    │   ├── UnsupportedImageError (ValueError)      .mimetype .allowed
    │   ├── ImageTooLargeError (ValueError)         .limit .actual
    │   ├── ImageTooSmallError (ValueError)         .limit .actual
    │   ├── ImageProportionsError (ValueError)      .limit .actual
    │   └── TooManyPicturesError (ValueError)       .limit .actual
    ├── NoOriginalError (FileNotFoundError)         no image is attached
    ├── ProcessingError (RuntimeError)              a callable or a worker process failed
    ├── StoreError                                  .store .name .status .code .request_id .attempts
    │   ├── StoreFileNotFoundError (FileNotFoundError)
    │   ├── StoreUnavailableError (ConnectionError) retry later
    │   ├── StorePermissionError (PermissionError)
    │   ├── StoreFileExistsError (FileExistsError)  files are never overwritten
    │   ├── StoreMissingError (LookupError)         the bucket does not exist
    │   ├── StoreFileMismatchError (ValueError)     wrong size or wrong checksum
    │   └── InvalidKeyError (ValueError)
    ├── MigrationError (ExceptionGroup)             .exceptions: why files were not moved
    ├── RefusedError (RuntimeError)                 an operation could damage files
    ├── IncompleteError (RuntimeError)              fewer rows were read than counted
    ├── TransactionExpiredError (TimeoutError)      the transaction took too long to commit
    └── OffloadError                                a value of an offloaded column
        ├── DamagedValueError (ValueError)          the stored value is corrupt
        └── ValueTooLargeError (ValueError)         .limit .actual

An :class:`ImageError` is caused by the sender of an image, a :class:`UsageError` by the programmer, and the others by
the environment. :class:`~aioimageattach.problems.ProblemMiddleware` turns them into HTTP responses.

Catch :class:`ImageAttachError` to catch every error of this library, or a builtin parent such as
:class:`FileNotFoundError` to handle an error by its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "ContextError",
    "DamagedValueError",
    "DeclarationError",
    "FetchError",
    "ForbiddenAddressError",
    "ImageAttachError",
    "ImageError",
    "ImageProportionsError",
    "ImageTooLargeError",
    "ImageTooSmallError",
    "IncompleteError",
    "InvalidKeyError",
    "MigrationError",
    "NoOriginalError",
    "NotLoadedError",
    "OffloadError",
    "ProcessingError",
    "RefusedError",
    "StoreError",
    "StoreFileExistsError",
    "StoreFileMismatchError",
    "StoreFileNotFoundError",
    "StoreMissingError",
    "StorePermissionError",
    "StoreUnavailableError",
    "TooManyPicturesError",
    "TransactionExpiredError",
    "UnreadableImageError",
    "UnsupportedImageError",
    "UsageError",
    "ValueTooLargeError",
]


class ImageAttachError(Exception):
    """Base class of all errors of this library."""


class UsageError(ImageAttachError):
    """The program uses the library incorrectly. The message says what to write instead."""


class ContextError(UsageError, LookupError):
    """No store is available: none was passed, and neither the context, the session nor the default sets one.

    It is also raised for a URL whose host neither the settings nor the current request provide.
    """


class DeclarationError(UsageError, TypeError):
    """A model or a call is invalid. The message says what to write instead."""


class StoreError(ImageAttachError):
    """A store operation failed.

    Args:
        message: Description of the failure, and how to fix it.
        store: Short description of the store. It never contains secrets.
        name: Name of the file within the store.
        status: HTTP status of the last response of a remote store; ``None`` if there was no response.
        code: Error code of the remote store, such as ``"AccessDenied"``.
        request_id: Identifier that the remote store gave to the request. Quote it to the provider's support.
        attempts: Number of attempts that were made.
    """

    def __init__(
        self,
        message: str,
        *,
        store: str | None = None,
        name: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.store = store
        self.name = name
        self.status = status
        self.code = code
        self.request_id = request_id
        self.attempts = attempts

    def __str__(self) -> str:
        return str(self.args[0])


class StoreFileNotFoundError(StoreError, FileNotFoundError):
    """The file does not exist in the store."""


class StoreMissingError(StoreError, LookupError):
    """The bucket does not exist. Check its name, region and endpoint."""


class StoreFileExistsError(StoreError, FileExistsError):
    """A file with that name already exists in the store. Files are never overwritten."""


class StoreFileMismatchError(StoreError, ValueError):
    """The size or the checksum of a file differs from its row, or from its copy in another store."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The store did not respond, is full, or reported a transient error. Retry later."""


class StorePermissionError(StoreError, PermissionError):
    """The store denied access, because of file permissions, a read-only mount, or the credentials."""


class InvalidKeyError(StoreError, ValueError):
    """A file name, an object type, an identifier or a revision is invalid."""


class MigrationError(ImageAttachError, ExceptionGroup[Exception]):
    """Some files could not be copied. Contains one error per file, with a note that names its row."""

    def derive(self, excs: Sequence[Any], /) -> MigrationError:  # type: ignore[override]
        """Return a group of the same class that contains only ``excs``. Called by ``except*``."""
        return MigrationError(self.message, excs)


class ImageError(ImageAttachError):
    """An image is rejected because of its content. The message may be shown to the person who sent it."""


class UnreadableImageError(ImageError, ValueError):
    """The file is not an image, or it is damaged."""


class UnsupportedImageError(ImageError, ValueError):
    """The type of an image is not allowed, or needs an extra that is not installed."""

    def __init__(self, message: str, *, mimetype: str | None = None, allowed: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.mimetype = mimetype
        self.allowed = allowed


class ImageTooLargeError(ImageError, ValueError):
    """An image exceeds a limit on bytes, width or height, pixels, frames, metadata, memory or time.

    ``limit`` and ``actual`` are in the unit given in the message.
    """

    def __init__(self, message: str, *, limit: float | None = None, actual: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class ImageTooSmallError(ImageError, ValueError):
    """The width or height of an original is below the limit of its class; ``limit`` and ``actual`` are in pixels."""

    def __init__(self, message: str, *, limit: float | None = None, actual: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class ImageProportionsError(ImageError, ValueError):
    """The aspect ratio of an original exceeds the limits of its class.

    ``limit`` and ``actual`` are ratios of width to height.
    """

    def __init__(self, message: str, *, limit: float | None = None, actual: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class TooManyPicturesError(ImageError, ValueError):
    """An owner would have more images than its attachment allows; see ``max_pictures``."""

    def __init__(self, message: str, *, limit: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class FetchError(ImageError, OSError):
    """An image cannot be fetched from a URL, or not in time.

    ``status`` is the HTTP status of the response, if there was one.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class ForbiddenAddressError(FetchError, PermissionError):
    """A URL resolves to an address that is not public. Nothing was sent to that address."""


class NoOriginalError(ImageAttachError, FileNotFoundError):
    """The image set has no original, or the original that a thumbnail was made from has been replaced or deleted."""

    def __str__(self) -> str:
        return str(self.args[0])


class NotLoadedError(UsageError, RuntimeError):
    """The rows of an image set, or an offloaded value, are not loaded, and a synchronous call cannot load them."""


class ProcessingError(ImageAttachError, RuntimeError):
    """Processing failed for a reason other than the image: in ``preprocess``, ``postprocess`` or a worker process."""


class RefusedError(ImageAttachError, RuntimeError):
    """An operation on many files was refused, because it could damage them. The message lists the reasons.

    A sweep found too many orphans, the files in a store belong to another database, or the database may hide committed
    rows, as a replica or a view does.
    """


class IncompleteError(ImageAttachError, RuntimeError):
    """Fewer rows were read than the database counts. The rows that were read have been processed."""


class TransactionExpiredError(ImageAttachError, TimeoutError):
    """A transaction was not committed because it took too long: a sweep could treat its files as orphaned.

    See ``transaction.fence``.
    """

    def __str__(self) -> str:
        return str(self.args[0])


class OffloadError(ImageAttachError):
    """Base class of errors of offloaded columns."""


class DamagedValueError(OffloadError, ValueError):
    """A stored file, or the reference to it in the row, is truncated, altered, or does not belong to the column."""


class ValueTooLargeError(OffloadError, ValueError):
    """A value is larger than its column allows; ``limit`` and ``actual`` are in bytes."""

    def __init__(self, message: str, *, limit: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual
