"""Watch the whole suite for secrets in log records, warnings, errors, output and objects.

The secrets are the passwords and keys of the test servers and databases, and S3 signatures, with which anybody can
repeat a request. ``conftest.py`` registers this module as a plugin.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url

from tests.databases import PASSWORD
from tests.servers.gate import SECRET_KEY

SECRETS = {SECRET_KEY, PASSWORD, "canary-secret", "canary-token", "canary-of-a-secret"}
SIGNATURE = re.compile("Signature(=|%3D)[0-9A-Za-z+/%]{26}")  # the old version's signature has 28 characters
FOLDERS = {"cli", "examples", "faults", "migration", "s3"}  # folders of tests whose objects have contained secrets


def secrets() -> set[str]:
    """Return the secrets of this run, including the database passwords that were configured for it."""
    named = (os.environ[name] for name in os.environ if name.startswith("TEST_") and name.endswith("_URL"))
    return SECRETS | {str(url.password) for url in map(make_url, named) if url.password}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and the errors of a group."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [found.__cause__, found.__context__, *getattr(found, "exceptions", ())]


def told(error: BaseException | None) -> Iterator[str]:
    """Yield the strings in which an error reveals its content."""
    for found in chain(error):
        yield f"{found!s} {found!r} {found.args!r} {getattr(found, '__notes__', '')}"
        if str(type(found).__module__).startswith("aioimageattach"):
            yield repr(vars(found))


class Canary:
    """Records where a secret appeared, and fails the test in which it did.

    Args:
        watched: The secrets.
    """

    def __init__(self, watched: Iterable[str]) -> None:
        self._watched = tuple(watched)
        self._looks_around = False
        self.leaks: list[str] = []

    def look(self, where: str, *texts: object) -> None:
        """Record a place whose text contains a secret, but not the secret itself."""
        for text in texts:
            if any(secret in str(text) for secret in self._watched) or SIGNATURE.search(str(text)):
                self.leaks.append(where)

    def hear(self, record: logging.LogRecord) -> None:
        """Examine a log record."""
        error = record.exc_info[1] if record.exc_info else None
        self.look(f"a record of the logger {record.name}", record.getMessage(), *told(error))

    def read(self, *outputs: bytes | str | None) -> None:
        """Examine the output of a program."""
        for output in outputs:
            self.look(
                "the output of a program", output.decode("utf-8", "replace") if isinstance(output, bytes) else output
            )

    def around(self) -> None:
        """Examine the remaining objects of this library."""
        for found in gc.get_objects():
            if str(type(found).__module__).startswith("aioimageattach"):
                with suppress(AttributeError):  # an object whose constructor refused its arguments
                    self.look(f"the text of a {type(found).__name__}", repr(found), str(found))

    # --- hooks -------------------------------------------------------------------------------------------------------

    def pytest_warning_recorded(self, warning_message: Any, when: str) -> None:
        self.look(f"a warning, {when}", warning_message.message)

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        last = (
            nextitem is None or nextitem.path != item.path
        )  # the remaining objects of the last test represent those of the others
        self._looks_around = last and not FOLDERS.isdisjoint(Path(item.path).parts)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call" and self._looks_around:
            self.around()
        self.look("an error of the test", *told(call.excinfo.value if call.excinfo else None))
        for title, text in report.sections:
            self.look(title, text)
        if self.leaks:
            report.outcome = "failed"
            report.longrepr = f"a secret was seen in: {', '.join(sorted({*self.leaks}))}"
            self.leaks.clear()
        return report


class Ears:
    """Passes log records, expected errors and the output of programs to the canary.

    Args:
        canary: The canary.
    """

    def __init__(self, canary: Canary) -> None:
        self._undo: list[Callable[[], None]] = []
        make = logging.getLogRecordFactory()

        def heard(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(*args, **kwargs)
            canary.hear(record)
            return record

        # Not a handler, because programs that configure logging, as Litestar does, replace handlers.
        logging.setLogRecordFactory(heard)
        self._undo.append(lambda: logging.setLogRecordFactory(make))

        leave = pytest.RaisesExc.__exit__

        def look(raises: pytest.RaisesExc[Any], kind: Any, error: Any, trace: Any) -> Any:
            __tracebackhide__ = True
            canary.look("an error that the test expects", *told(error))
            return leave(raises, kind, error, trace)

        self._replace(pytest.RaisesExc, "__exit__", look)

        invoke, communicate = CliRunner.invoke, subprocess.Popen.communicate

        def invoked(runner: CliRunner, *args: Any, **kwargs: Any) -> Result:
            result = invoke(runner, *args, **kwargs)
            canary.read(result.output)
            canary.look("an error of a command", *told(result.exception))
            return result

        def communicated(process: subprocess.Popen[Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            outputs = communicate(process, *args, **kwargs)
            canary.read(*outputs)
            return outputs

        self._replace(CliRunner, "invoke", invoked)
        self._replace(subprocess.Popen, "communicate", communicated)

    def _replace(self, owner: type, name: str, function: Callable[..., Any]) -> None:
        before = getattr(owner, name)
        self._undo.append(lambda: setattr(owner, name, before))
        setattr(owner, name, function)

    def restore(self) -> None:
        """Restore the original functions."""
        while self._undo:
            self._undo.pop()()


def register(config: pytest.Config) -> None:
    """Watch this run."""
    canary = Canary(secrets())
    config.pluginmanager.register(canary, "canary")
    logging.getLogger("aioimageattach").setLevel(logging.DEBUG)  # otherwise it would not receive all records
    config.add_cleanup(Ears(canary).restore)
