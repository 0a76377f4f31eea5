"""The watch over secrets sees them wherever they may appear; it watches the whole suite."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from aioimageattach.exc import StoreError
from tests.canary import SECRETS, Canary, Expected, told

SECRET = "a-secret-of-this-test"


@pytest.fixture
def watch() -> Canary:
    return Canary([SECRET])


def chained() -> StoreError:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ValueError("harmless") from error
    except ValueError as error:
        outer = StoreError("harmless")
        outer.__context__ = ExceptionGroup("several", [error])
        return outer


def logged(watch: Canary, message: str, *args: Any, error: BaseException | None = None) -> None:
    info = None if error is None else (type(error), error, None)
    watch.handle(logging.LogRecord("x", logging.DEBUG, "file", 1, message, args, info))


@pytest.mark.parametrize(
    "leak",
    [
        lambda watch: logged(watch, "signed with %s", SECRET),
        lambda watch: logged(watch, "failed", error=chained()),
        lambda watch: watch.look("an error", *told(StoreError(f"with {SECRET}"))),
        lambda watch: watch.look("an attribute", *told(StoreError("harmless", name=SECRET))),
        lambda watch: watch.pytest_warning_recorded(SimpleNamespace(message=UserWarning(SECRET)), "runtest"),
    ],
)
def test_a_secret_is_seen(leak: Any, watch: Canary) -> None:
    """In a message, an argument, an attribute, a warning, and an error behind an error; and it is not told on."""
    leak(watch)
    assert len(watch.leaks) == 1
    assert SECRET not in watch.leaks[0]


def test_what_is_no_secret_is_not(watch: Canary) -> None:
    """Everything else may be said."""
    logged(watch, "signed with %s", "a key", error=ValueError("wrong"))
    watch.around()
    assert watch.leaks == []


def test_errors_that_tests_expect_are_looked_at(watch: Canary) -> None:
    """An error does not escape by being expected."""
    expected = Expected(watch)
    try:
        with pytest.raises(ValueError, match="wrong"):
            raise ValueError("wrong") from chained()
    finally:
        expected.restore()
    assert watch.leaks == ["an error that the test expects"]


def test_objects_are_looked_at(watch: Canary) -> None:
    """What an object of this library says of itself is heard."""
    kept = StoreError(SECRET)
    watch.around()
    assert "the text of a StoreError" in watch.leaks
    assert str(kept) == SECRET


def test_the_suite_is_watched(pytestconfig: pytest.Config) -> None:
    """The plugin is there, hears every logger, and knows what the tests give to servers."""
    found = pytestconfig.pluginmanager.get_plugin("canary")
    assert isinstance(found, Canary)
    assert found in logging.getLogger().handlers
    for secret in SECRETS:
        logged(found, secret)
    assert len(found.leaks) == len(SECRETS)
    found.leaks.clear()
