"""The errors of the library."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from aioimageattach import exc

PARENTS = {
    exc.ContextError: LookupError,
    exc.DeclarationError: TypeError,
    exc.StoreFileNotFoundError: FileNotFoundError,
    exc.StoreFileExistsError: FileExistsError,
    exc.StoreMissingError: LookupError,
    exc.StoreFileMismatchError: ValueError,
    exc.StoreUnavailableError: ConnectionError,
    exc.StorePermissionError: PermissionError,
    exc.InvalidKeyError: ValueError,
    exc.MigrationError: ExceptionGroup,
    exc.UnreadableImageError: ValueError,
    exc.UnsupportedImageError: ValueError,
    exc.ImageTooLargeError: ValueError,
    exc.ImageTooSmallError: ValueError,
    exc.ImageProportionsError: ValueError,
    exc.FetchError: OSError,
    exc.ForbiddenAddressError: PermissionError,
    exc.NoOriginalError: FileNotFoundError,
    exc.NotLoadedError: RuntimeError,
    exc.ProcessingError: RuntimeError,
    exc.DamagedValueError: ValueError,
    exc.ValueTooLargeError: ValueError,
    exc.RefusedError: RuntimeError,
    exc.TransactionExpiredError: TimeoutError,
}


def test_all_errors_have_one_root() -> None:
    """Every error in the module is exported and is a subclass of ImageAttachError."""
    found = {name for name, value in vars(exc).items() if inspect.isclass(value) and value.__module__ == exc.__name__}
    assert found == set(exc.__all__)
    assert all(issubclass(getattr(exc, name), exc.ImageAttachError) for name in found)


@pytest.mark.parametrize(("error", "parent"), PARENTS.items())
def test_errors_derive_from_builtin_errors(error: type[exc.ImageAttachError], parent: type[Exception]) -> None:
    """An error can be caught as the corresponding builtin error."""
    assert issubclass(error, parent)


@pytest.mark.parametrize(
    "error",
    [
        exc.StoreError("what", store="the store", name="a/b"),
        exc.StoreFileNotFoundError("what", store="the store", name="a/b"),
        exc.StoreUnavailableError("what", store="the store", name="a/b", attempts=3),
        exc.StorePermissionError("what", store="the store", name="a/b", status=403, code="AccessDenied"),
        exc.UnsupportedImageError("what", mimetype="image/x", allowed=frozenset({"image/png"})),
        exc.ImageTooLargeError("what", limit=10, actual=11),
        exc.ImageTooSmallError("what", limit=10, actual=9),
        exc.ImageProportionsError("what", limit=1.5, actual=2.0),
        exc.NoOriginalError("what"),
        exc.ValueTooLargeError("what", limit=10, actual=11),
        exc.TransactionExpiredError("what"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_carry_their_data(error: exc.ImageAttachError) -> None:
    """``str()`` of an error is its message, and a copied or unpickled error has the same data."""
    assert str(error) == "what"
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == "what"
        assert vars(twin) == vars(error)


def test_except_star_splits_a_group() -> None:
    """``except*`` handles the matching errors, and the rest is a group of the same class."""
    group = exc.MigrationError("two", [exc.StoreFileNotFoundError("gone"), exc.StorePermissionError("no")])
    found = group.subgroup(FileNotFoundError)
    assert isinstance(found, exc.MigrationError)
    assert [str(error) for error in found.exceptions] == ["gone"]
