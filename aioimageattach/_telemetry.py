"""Spans and metrics through OpenTelemetry, in applications that use it, and the fields of log records.

This module does not import OpenTelemetry: an application that has configured it has already imported it. In other
applications, each call costs one lookup in ``sys.modules``. The providers may be configured before or after the first
call.

Attributes of metrics have low cardinality. No attribute contains the name of a file, because an original may be
protected only by the secrecy of its name, nor the text of an error, which may contain such a name.
"""

from __future__ import annotations

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any, Final, TypeAlias

from .version import VERSION

__all__ = [
    "ATTACH",
    "GET",
    "JOB",
    "JOB_WAIT",
    "LEFT",
    "PUT",
    "REFUSED",
    "RENDER",
    "REQUESTS",
    "WAIT",
    "Counter",
    "Operation",
    "Timer",
    "log_fields",
    "redacted",
]

Attributes: TypeAlias = Mapping[str, str | int]

_SCOPE: Final = "aioimageattach"
_ERROR: Final = "error.type"
_SECRETS: Final = re.compile(r"""(?<=://)[^\s'"<>]*(?=@)|(?<=password=)[^\s'"<>&]+""", re.IGNORECASE)
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The buckets that the semantic conventions of OpenTelemetry recommend for the duration of a request."""


def _tracing() -> ModuleType | None:
    """Return the module for spans if the application has imported it; another thread may still be importing it."""
    module = sys.modules.get("opentelemetry.trace")
    return module if module is not None and hasattr(module, "get_tracer") else None


def _metering() -> ModuleType | None:
    """Return the module for metrics if the application has imported it."""
    module = sys.modules.get("opentelemetry.metrics")
    return module if module is not None and hasattr(module, "get_meter") else None


def _prefixed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{_SCOPE}.{name}": value for name, value in values.items()}


def _failure(error: BaseException | None) -> dict[str, str]:
    """Return the attribute of an error: the name of its class, with the module unless it is a builtin."""
    if error is None:
        return {}
    cls = type(error)
    return {_ERROR: cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"}


def log_fields(event: str, /, error: BaseException | None = None, **values: object) -> dict[str, object]:
    """Return the fields of a log record, for ``extra``.

    Args:
        event: Stable name of the event.
        error: The error that is logged.
        values: Other fields.
    """
    return {"event.name": f"{_SCOPE}.{event}", **_failure(error), **_prefixed(values)}


def redacted(error: BaseException) -> str:
    """Return the text of an error of another library, without the users and passwords of the URLs in it."""
    return _SECRETS.sub("***", str(error)).strip()


class _Instrument(ABC):
    """An instrument that is created on first use.

    Args:
        name: Name, without the prefix.
        description: Description that backends display.
    """

    def __init__(self, name: str, description: str) -> None:
        self.name: str = f"{_SCOPE}.{name}"
        self._description = description
        self._made: tuple[ModuleType, Any] | None = None

    def _found(self) -> Any:
        """Return the instrument; ``None`` if the application does not use metrics."""
        metering = _metering()
        if metering is None:
            return None
        if self._made is None or self._made[0] is not metering:
            self._made = metering, self._make(metering.get_meter(_SCOPE, VERSION))
        return self._made[1]

    @abstractmethod
    def _make(self, meter: Any) -> Any: ...


class Counter(_Instrument):
    """Counts events."""

    def __init__(self, name: str, description: str, unit: str) -> None:
        super().__init__(name, description)
        self._unit = unit

    def add(self, number: int = 1, **attributes: str | int) -> None:
        """Count some events. The attributes are given without the prefix."""
        counter = self._found()
        if counter is not None:
            counter.add(number, _prefixed(attributes))

    def _make(self, meter: Any) -> Any:
        return meter.create_counter(self.name, self._unit, self._description)


class Timer(_Instrument):
    """A histogram of durations in seconds."""

    def record(self, seconds: float, error: BaseException | None = None, **attributes: str | int) -> None:
        """Record a duration. The attributes are given without the prefix."""
        histogram = self._found()
        if histogram is not None:
            histogram.record(seconds, {**_prefixed(attributes), **_failure(error)})

    @contextmanager
    def measure(self, **attributes: str | int) -> Generator[None]:
        """Record the duration of the block."""
        started, failed = time.perf_counter(), None
        try:
            yield
        except BaseException as error:
            failed = error
            raise
        finally:
            self.record(time.perf_counter() - started, failed, **attributes)

    def _make(self, meter: Any) -> Any:
        return meter.create_histogram(self.name, "s", self._description, explicit_bucket_boundaries_advisory=_SECONDS)


class Operation(Timer):
    """An operation with a span, and a histogram of its duration whose name has the suffix ``.duration``."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(f"{name}.duration", description)
        self._span = f"{_SCOPE}.{name}"
        self._tracer: tuple[ModuleType, Any] | None = None

    def __call__(self, **attributes: str | int) -> AbstractContextManager[object]:
        """Return a context manager that measures its block. The attributes are given without the prefix."""
        tracing = _tracing()
        if tracing is not None:
            return self._traced(tracing, attributes)
        return _NOTHING if _metering() is None else self.measure(**attributes)

    @contextmanager
    def _traced(self, tracing: ModuleType, attributes: Attributes) -> Generator[None]:
        if self._tracer is None or self._tracer[0] is not tracing:
            self._tracer = tracing, tracing.get_tracer(_SCOPE, VERSION)
        span = self._tracer[1].start_as_current_span(
            self._span, attributes=_prefixed(attributes), record_exception=False, set_status_on_exception=False
        )
        with span as current, self.measure(**attributes):
            try:
                yield
            except BaseException as error:
                current.set_attributes(_failure(error))
                current.set_status(tracing.StatusCode.ERROR)
                raise


_NOTHING: Final = nullcontext()
JOB: Final = Operation("thumbnail.job", "Time taken to make the missing thumbnails of an image, and to mark its row.")
JOB_WAIT: Final = Timer("thumbnail.job.wait.duration", "Time for which a committed image waited in this process.")
REFUSED: Final = Counter("thumbnail.job.refused", "Images that were not accepted, because too many waited.", "{image}")

LEFT: Final = "files.left"
"""Name of the event that is logged when files without a row could not be deleted and are left to a sweep."""

ATTACH: Final = Operation("attach", "Time taken to receive, check and reduce an uploaded image.")
PUT: Final = Operation("store.put", "Time taken to put a file.")
GET: Final = Operation("store.get", "Time taken to open a file.")
RENDER: Final = Operation("render", "Time taken to render the thumbnails of an image from one decode.")
WAIT: Final = Timer("thumbnail.wait.duration", "Time for which the rendering of a thumbnail waited for capacity.")
REQUESTS: Final = Counter("thumbnail.requests", "Requests to the server of declared thumbnails.", "{request}")
