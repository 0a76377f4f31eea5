"""Every error this library raises.

::

    ImageAttachError
    ├── UsageError                                  the program uses the library wrongly
    │   ├── ContextError (LookupError)              no current store
    │   ├── DeclarationError (TypeError)            a model or a call that cannot work as written
    │   ├── NotLoadedError (RuntimeError)           the rows of a set are not loaded
    │   └── DetachedError (RuntimeError)            the owner is in no session
    ├── ImageError                                  a picture is refused
    │   ├── FetchError (OSError)                    .status
    │   │   ├── ForbiddenAddressError (PermissionError)
    │   │   └── FetchTimeoutError (TimeoutError)
    │   ├── UnreadableImageError (ValueError)
    │   ├── UnsupportedImageError (ValueError)      .mimetype .allowed
    │   ├── ImageTooLargeError (ValueError)         .limit .actual
    │   ├── ImageTooSmallError (ValueError)         .limit .actual
    │   ├── ImageProportionsError (ValueError)      .limit .actual
    │   └── TooManyPicturesError (ValueError)       .limit .actual
    ├── NoOriginalError (FileNotFoundError)         there is no picture
    ├── ProcessingError (RuntimeError)              a callable or a worker process failed
    ├── StoreError                                  .store .name .status .code .request_id .attempts
    │   ├── StoreFileNotFoundError (FileNotFoundError)
    │   ├── StoreUnavailableError (ConnectionError) worth a retry
    │   ├── StorePermissionError (PermissionError)
    │   ├── StoreFileExistsError (FileExistsError)  a put never overwrites
    │   ├── StoreMissingError (LookupError)         there is no such bucket: no file can be reached
    │   ├── StoreFileMismatchError (ValueError)     a file is not the one its row tells of
    │   ├── InvalidKeyError (ValueError)
    │   └── UnknownHostError (RuntimeError)         a URL needs a host, and none is known
    ├── MigrationError (ExceptionGroup)             .exceptions: why files were not moved
    ├── SweepRefusedError (RuntimeError)            the store or the database does not look right
    ├── TransactionExpiredError (TimeoutError)      its files waited too long for their rows
    └── OffloadError                                a value of an offloaded column
        ├── DamagedValueError (ValueError)          what is stored is not what was stored
        ├── ValueNotLoadedError (UsageError)        it is in the store, and was not fetched
        └── ValueTooLargeError (ValueError)         .limit .actual

:class:`ImageError` is the sender's fault, :class:`UsageError` is the programmer's, and the others depend on the
circumstances. :class:`~aioimageattach.problems.ProblemMiddleware` turns them into responses.

Catch the root to catch them all, or the builtin parent for its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "ContextError",
    "DamagedValueError",
    "DeclarationError",
    "DetachedError",
    "FetchError",
    "FetchTimeoutError",
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
    "OwnershipError",
    "ProcessingError",
    "StoreError",
    "StoreFileExistsError",
    "StoreFileMismatchError",
    "StoreFileNotFoundError",
    "StoreMissingError",
    "StorePermissionError",
    "StoreUnavailableError",
    "SweepRefusedError",
    "TooManyPicturesError",
    "TransactionExpiredError",
    "UnknownHostError",
    "UnreadableImageError",
    "UnsafeDatabaseError",
    "UnsupportedImageError",
    "UsageError",
    "ValueNotLoadedError",
    "ValueTooLargeError",
]


class ImageAttachError(Exception):
    """The root of every error of this library."""


class UsageError(ImageAttachError):
    """The program uses the library wrongly; the message says what to write instead. No user can avoid it."""


class ContextError(UsageError, LookupError):
    """A store was needed and none is set: no argument, context, session or default names one."""


class DeclarationError(UsageError, TypeError):
    """A model or a call cannot work as it is written; the message says what to write instead."""


class StoreError(ImageAttachError):
    """A store could not do what it was asked.

    Args:
        message: What was expected, what came, what to do.
        store: The store's own short description; never holds a secret.
        name: The name of the file within the store.
        status: The HTTP status of a remote store's last answer; ``None`` where there was none.
        code: What the remote store calls the problem, such as ``"AccessDenied"``.
        request_id: What the remote store calls the request, for those who run it.
        attempts: How often it was tried.
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
    """The store has no file of that name."""


class StoreMissingError(StoreError, LookupError):
    """The bucket itself does not exist, so no file in it can be reached; see its name, region and endpoint."""


class StoreFileExistsError(StoreError, FileExistsError):
    """The store already has a file of that name; a file is never overwritten."""


class StoreFileMismatchError(StoreError, ValueError):
    """A file has another size or fingerprint than its row, or its copy in another store, says."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The store did not answer, is full or answered with a passing fault; worth a retry later."""


class StorePermissionError(StoreError, PermissionError):
    """The store refused access: file permissions, a read-only mount, or credentials."""


class InvalidKeyError(StoreError, ValueError):
    """A name, an object type, an identifier or a revision that no file may have."""


class UnknownHostError(StoreError, RuntimeError):
    """A URL was asked for where neither the settings nor a request tell the host it begins with."""


class MigrationError(ImageAttachError, ExceptionGroup[Exception]):
    """Files could not be moved; the others were. It holds the error of each, with a note of its row."""

    def derive(self, excs: Sequence[Any], /) -> MigrationError:  # type: ignore[override]
        """Return an error of the same kind for some of the errors; ``except*`` asks for it."""
        return MigrationError(self.message, excs)


class ImageError(ImageAttachError):
    """A picture is refused because of its content; the message may be shown to the person who sent it."""


class UnreadableImageError(ImageError, ValueError):
    """The bytes are no picture, or a broken one."""


class UnsupportedImageError(ImageError, ValueError):
    """A picture of a kind that is not allowed here, or that needs an extra that is not installed."""

    def __init__(self, message: str, *, mimetype: str | None = None, allowed: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.mimetype = mimetype
        self.allowed = allowed


class ImageTooLargeError(ImageError, ValueError):
    """A picture beyond a limit: bytes, sides, pixels, frames, metadata or time.

    ``limit`` and ``actual`` are in the unit that the message names.
    """

    def __init__(self, message: str, *, limit: float | None = None, actual: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class ImageTooSmallError(ImageError, ValueError):
    """An original whose width or height is below the limit of its class; ``limit`` and ``actual`` are in pixels."""

    def __init__(self, message: str, *, limit: float | None = None, actual: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class ImageProportionsError(ImageError, ValueError):
    """An original that is wider or narrower than its class allows; ``limit`` and ``actual`` are width by height."""

    def __init__(self, message: str, *, limit: float | None = None, actual: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class TooManyPicturesError(ImageError, ValueError):
    """An owner would have more pictures than its attachment allows (``max_pictures``)."""

    def __init__(self, message: str, *, limit: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class FetchError(ImageError, OSError):
    """A picture cannot be fetched from a URL; ``status`` is that of the response, if there was one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class ForbiddenAddressError(FetchError, PermissionError):
    """A URL leads to an address that is not public; nothing was sent to it."""


class FetchTimeoutError(FetchError, TimeoutError):
    """A server did not send a file in time."""


class NoOriginalError(ImageAttachError, FileNotFoundError):
    """The image set has no original picture, or no longer the one that a thumbnail was made from."""

    def __str__(self) -> str:
        return str(self.args[0])


class NotLoadedError(UsageError, RuntimeError):
    """The rows of an image set are not loaded, and a synchronous call cannot fetch them."""


class DetachedError(UsageError, RuntimeError):
    """The owner of an image set is in no session where the call needs one."""


class ProcessingError(ImageAttachError, RuntimeError):
    """A picture could not be processed, and it is not at fault: a ``preprocess``, a ``postprocess`` or a worker process
    failed."""


class SweepRefusedError(ImageAttachError, RuntimeError):
    """A sweep might remove what is needed: the message says what does not look right; nothing was removed for it."""


class UnsafeDatabaseError(ImageAttachError, RuntimeError):
    """A database may not show all committed rows, as a replica or a view; the message says why."""


class IncompleteError(ImageAttachError, RuntimeError):
    """Not all rows were read, although the database counts them; the others were dealt with."""


class OwnershipError(ImageAttachError, RuntimeError):
    """The files in a store belong to another database; the message says which is which."""


class TransactionExpiredError(ImageAttachError, TimeoutError):
    """A transaction was not committed: a sweep could take its files for orphans; see ``transaction.fence``."""

    def __str__(self) -> str:
        return str(self.args[0])


class OffloadError(ImageAttachError):
    """An offloaded column could not be read or written."""


class DamagedValueError(OffloadError, ValueError):
    """A file, or the reference to it in the row, is not what was stored: cut off, altered, or somebody else's."""


class ValueNotLoadedError(OffloadError, UsageError, RuntimeError):
    """A value is in the store, and a synchronous call cannot fetch it; or its column is not loaded."""


class ValueTooLargeError(OffloadError, ValueError):
    """A value has more bytes than its column allows.

    ``limit`` and ``actual`` are in bytes.
    """

    def __init__(self, message: str, *, limit: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual
