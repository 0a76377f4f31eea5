"""The plugin that watches for secrets detects them wherever they may appear, during the whole suite."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from logging.config import dictConfig
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from aioimageattach.exc import StoreError
from tests.canary import SECRETS, Canary, Ears, told

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


@pytest.fixture
def ears(watch: Canary) -> Iterator[Canary]:
    """The plugin, connected to every source for the duration of the test."""
    ears = Ears(watch)
    yield watch
    ears.restore()


def logged(watch: Canary, message: str, *args: Any, error: BaseException | None = None) -> None:
    info = None if error is None else (type(error), error, None)
    watch.hear(logging.LogRecord("x", logging.DEBUG, "file", 1, message, args, info))


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
    """A secret is detected in a message, argument, attribute, warning or chained error, and is not repeated."""
    leak(watch)
    assert len(watch.leaks) == 1
    assert SECRET not in watch.leaks[0]


def test_other_texts_are_not_reported(watch: Canary) -> None:
    """Texts without secrets are not reported."""
    logged(watch, "signed with %s", "a key", error=ValueError("wrong"))
    watch.around()
    assert watch.leaks == []


def test_signatures_are_secret(watch: Canary) -> None:
    """Signatures in headers and URLs are detected, whatever key they were made with."""
    logged(watch, "asked for https://bucket/x?X-Amz-Signature=%s", "0a" * 32)
    logged(watch, "sent Credential=AKID/20260101, Signature=%s", "0a" * 32)
    logged(watch, "asked for https://bucket/x?AWSAccessKeyId=AKID&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires=1")
    logged(watch, "X-Amz-Signature=%s", "...")
    assert len(watch.leaks) == 3


def test_expected_errors_are_examined(ears: Canary) -> None:
    """An error that a test expects is examined, too."""
    with pytest.raises(ValueError, match="wrong"):
        raise ValueError("wrong") from chained()
    assert ears.leaks == ["an error that the test expects"]


def test_reconfigured_logging_does_not_disable_the_plugin(ears: Canary) -> None:
    """Frameworks that replace logging handlers do not disable the plugin."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logger = logging.getLogger("aioimageattach.stores.s3.of_this_test")
    try:
        dictConfig({"version": 1, "disable_existing_loggers": False, "root": {"level": "INFO", "handlers": []}})
        assert root.handlers == []
        logger.propagate = False
        logger.debug("signed with %s", SECRET)
    finally:
        root.handlers[:], root.level = before
    assert ears.leaks == ["a record of the logger aioimageattach.stores.s3.of_this_test"]


def test_the_output_of_programs_is_examined(ears: Canary) -> None:
    """The output and errors of the command line are examined, in this process and in another."""

    @click.command()
    @click.argument("text")
    def command(text: str) -> None:
        click.echo(f"with {text}", err=True)
        raise chained()

    CliRunner().invoke(command, [SECRET])
    assert {"the output of a program", "an error of a command"} == set(ears.leaks)
    ears.leaks.clear()
    for stream in ("stdout", "stderr"):
        code = f"import sys; print(sys.argv[1], file=sys.{stream})"
        subprocess.run([sys.executable, "-c", code, SECRET], capture_output=True, check=True)
    assert ears.leaks == ["the output of a program"] * 2


def test_objects_are_examined(watch: Canary) -> None:
    """The repr of this library's objects is examined."""
    kept = StoreError(SECRET)
    watch.around()
    assert "the text of a StoreError" in watch.leaks
    assert str(kept) == SECRET


def test_the_suite_is_watched(pytestconfig: pytest.Config) -> None:
    """The plugin is active, receives the log records of this library, and knows the secrets of the tests."""
    found = pytestconfig.pluginmanager.get_plugin("canary")
    assert isinstance(found, Canary)
    before = len(found.leaks)
    logger = logging.getLogger("aioimageattach.of_this_test")
    logger.propagate = False  # no other handler needs to receive it
    for secret in SECRETS:
        logger.debug("with %s", secret)
    assert len(found.leaks) - before == len(SECRETS)
    del found.leaks[before:]
