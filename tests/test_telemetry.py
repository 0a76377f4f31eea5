"""Spans and metrics, with the real SDK of OpenTelemetry and its exporters in memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aioimageattach import ThumbnailWorker, _telemetry
from aioimageattach._declared.maker import Original
from aioimageattach._telemetry import REQUESTS, WAIT, Counter, Operation, Timer, log_fields
from aioimageattach.exc import StoreFileNotFoundError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import Recipe, render
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.thumbnails._dispatch import Job, JobRunner
from aioimageattach.thumbnails._maker import ThumbnailMaker
from aioimageattach.thumbnails._turns import Priority, turns
from tests.databases import Database
from tests.entity.models import User, started
from tests.photos import photo
from tests.servers.gate import Gate
from tests.stores.s3.conftest import MakeStore
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server
from tests.thumbnails import test_worker as worker
from tests.thumbnails.models import Photo, all_thumbnails, put
from tests.thumbnails.test_server import Site

ROOT = Path(__file__).parent.parent
TRACE, METRICS = "opentelemetry.trace", "opentelemetry.metrics"


@dataclass
class Observed:
    """The data that the exporters of an application received."""

    spans: Any
    reader: Any
    names: list[str] = field(default_factory=list)

    def finished(self) -> dict[str, Any]:
        """The spans that ended, by name; the last one of each name."""
        return {span.name: span for span in self.spans.get_finished_spans()}

    def points(self, name: str) -> list[tuple[dict[str, Any], int]]:
        """The attributes and the count of each data point of a metric."""
        found = self.reader.get_metrics_data()
        return [
            (dict(point.attributes), point.count if hasattr(point, "count") else point.value)
            for resource in (found.resource_metrics if found is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def metric(self, name: str) -> Any:
        """A metric by its name."""
        return next(
            metric
            for resource in self.reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        )


@pytest.fixture
def without_api() -> Iterator[None]:
    """Hide OpenTelemetry, as in a process that has not imported it, and restore it afterwards."""

    def forget() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "opentelemetry"}

    before = forget()
    yield
    forget()
    sys.modules.update(before)


@pytest.fixture
def observed(without_api: None) -> Observed:
    """A process that has configured OpenTelemetry for spans and metrics."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(MeterProvider([reader]))
    return Observed(spans, reader)


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyedStore:
    """A store of each kind that requires no server."""
    return MemoryStore() if request.param == "memory" else FileSystemStore(tmp_path, "/", fsync=False)


# --- without OpenTelemetry -------------------------------------------------------------------------------------------


def test_importing_the_package_does_not_load_opentelemetry() -> None:
    """Neither importing nor using the package loads OpenTelemetry, even if it is installed."""
    program = """
import asyncio, sys
import aioimageattach, aioimageattach.thumbnails, aioimageattach.maintenance
from aioimageattach.stores import MemoryStore

async def main():
    store = MemoryStore()
    await store.put_object("a/b", b"c")
    async with await store.get_object("a/b") as file:
        assert await file.read() == b"c"

asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"


async def test_nothing_is_measured_without_the_api(without_api: None, store: KeyedStore) -> None:
    """Operations work without OpenTelemetry, and return the same context manager for every block."""
    await store.put_object("a/b", b"c")
    async with await store.get_object("a/b") as file:
        assert await file.read() == b"c"
    assert Operation("x", "")() is Operation("y", "")(store="s3")
    Counter("z", "", "{request}").add()
    Timer("w", "").record(1.0)


def test_a_module_that_is_still_being_imported_is_ignored(without_api: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API is ignored while another thread is still importing it."""
    for name in (TRACE, METRICS):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    with Operation("x", "")():
        pass
    Counter("y", "", "{request}").add()


# --- with OpenTelemetry ----------------------------------------------------------------------------------------------


async def test_puts_and_gets_are_measured(observed: Observed, store: KeyedStore) -> None:
    """Each put and get has a span and a data point, with the kind of the store but not the name of the file."""
    kind = "memory" if isinstance(store, MemoryStore) else "directory"
    await store.put_object("secret/name", b"c")
    async with await store.get_object("secret/name"):
        pass
    for name in ("aioimageattach.store.put", "aioimageattach.store.get"):
        span = observed.finished()[name]
        assert dict(span.attributes) == {"aioimageattach.store": kind}
        assert span.status.status_code.name == "UNSET"
        assert observed.points(f"{name}.duration") == [({"aioimageattach.store": kind}, 1)]
    assert span.instrumentation_scope.name == "aioimageattach"
    metric = observed.metric("aioimageattach.store.get.duration")
    assert metric.unit == "s"
    assert metric.data.data_points[0].explicit_bounds[0] == 0.005


async def test_operations_of_a_bucket_are_measured(observed: Observed, gate: Gate, make_store: MakeStore) -> None:
    """The kind of the store is an attribute; neither the bucket's name nor credentials are."""
    store = make_store(gate.url)
    await store.put_object("secret/name", b"c")
    async with await store.get_object("secret/name") as file:
        assert await file.read() == b"c"
    for name in ("aioimageattach.store.put", "aioimageattach.store.get"):
        assert dict(observed.finished()[name].attributes) == {"aioimageattach.store": "s3"}


async def test_a_failure_has_its_class_but_not_its_text(observed: Observed, store: KeyedStore) -> None:
    """The span has the class of the error, but not its text, which may contain the name of a file."""
    with pytest.raises(StoreFileNotFoundError, match="secret"):
        await store.get_object("secret/name")
    span = observed.finished()["aioimageattach.store.get"]
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["error.type"] == "aioimageattach.exc.StoreFileNotFoundError"
    assert "secret" not in span.to_json()
    [(attributes, count)] = observed.points("aioimageattach.store.get.duration")
    assert attributes["error.type"] == "aioimageattach.exc.StoreFileNotFoundError"
    assert count == 1


def test_builtin_errors_have_no_module(observed: Observed) -> None:
    """Builtin errors are named without a module, as the semantic conventions require."""
    with pytest.raises(TimeoutError), Operation("x", "")():
        raise TimeoutError
    assert observed.finished()["aioimageattach.x"].attributes["error.type"] == "TimeoutError"


async def test_a_rendering_belongs_to_the_span_of_the_caller(observed: Observed) -> None:
    """The span of a rendering in a worker thread is a child of the caller's span."""
    from opentelemetry import trace

    from aioimageattach._threads import run_pixels

    with trace.get_tracer("test").start_as_current_span("request"):
        await run_pixels(render, photo("chelsea"), [Recipe(width=20)])
    found = observed.finished()
    assert found["aioimageattach.render"].parent.span_id == found["request"].context.span_id
    assert observed.points("aioimageattach.render.duration") == [({}, 1)]


def test_spans_alone(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that has imported only the tracing API gets spans."""
    monkeypatch.delitem(sys.modules, METRICS)
    with Operation("x", "")():
        pass
    Counter("y", "", "{request}").add()
    assert "aioimageattach.x" in observed.finished()


def test_metrics_alone(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that has imported only the metrics API gets metrics."""
    monkeypatch.delitem(sys.modules, TRACE)
    with Operation("x", "")():
        pass
    assert observed.points("aioimageattach.x.duration") == [({}, 1)]
    assert observed.finished() == {}


def test_events_are_counted(observed: Observed) -> None:
    """A counter has a unit and the sum of all events."""
    counter = Counter("y", "What is counted.", "{request}")
    counter.add(result="hit")
    counter.add(result="hit")
    counter.add(result="miss")
    assert sorted(observed.points("aioimageattach.y"), key=str) == [
        ({"aioimageattach.result": "hit"}, 2),
        ({"aioimageattach.result": "miss"}, 1),
    ]
    metric = observed.metric("aioimageattach.y")
    assert (metric.unit, metric.description) == ("{request}", "What is counted.")


def test_providers_may_be_configured_after_the_first_call(without_api: None) -> None:
    """Calls before the configuration are not measured; later calls are."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    counter = Counter("y", "", "{request}")
    counter.add()
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    counter.add()
    assert Observed(None, reader).points("aioimageattach.y") == [({}, 1)]


# --- uploads ---------------------------------------------------------------------------------------------------------


async def test_refused_uploads_are_counted(observed: Observed) -> None:
    """The data point of a rejected upload has the class of the error."""
    user = User()
    await user.picture.from_blob(photo("chelsea"), MemoryStore())
    with pytest.raises(UnsupportedImageError):
        await user.picture.from_blob(b"<svg xmlns='http://www.w3.org/2000/svg'/>", MemoryStore())
    assert observed.points("aioimageattach.attach.duration") == [
        ({}, 1),
        ({"error.type": "aioimageattach.exc.UnsupportedImageError"}, 1),
    ]


# --- thumbnails ------------------------------------------------------------------------------------------------------


async def test_requests_for_thumbnails_are_counted(observed: Observed, store: KeyedStore) -> None:
    """Requests are counted by result, and for misses the wait for capacity and the rendering are measured."""
    site, original = Site(store), await put(Photo, store)
    [share] = site.urls(original, "share")
    assert [(await site.ask(share)).status for _ in range(3)] == [200, 200, 200]
    await site.settle()
    outdated = share.replace(".120x63.", ".120x64.")
    assert (await site.ask(outdated)).status == 302
    assert (await site.ask(share.replace("-share-", "-shape-"))).status == 404
    requests = {point["aioimageattach.result"]: count for point, count in observed.points(REQUESTS.name)}
    assert requests == {"hit": 2, "miss": 1, "redirect": 1, "not_found": 1}
    assert ({"aioimageattach.priority": "request"}, 1) in observed.points("aioimageattach.thumbnail.wait.duration")
    assert "aioimageattach.render" in observed.finished()
    assert str(original.revision) not in "".join(span.to_json() for span in observed.spans.get_finished_spans())


async def test_refused_requests_are_counted(observed: Observed) -> None:
    """Requests that got no capacity in time, and those whose image cannot be read, are counted."""
    store = MemoryStore()
    site, original = Site(store, concurrency=1, max_wait=0.01), await put(Photo, store)
    broken = await put(Photo, store, b"not a picture")
    await turns().acquire(Priority.REQUEST, 1)
    assert (await site.ask(site.urls(original, "share")[0])).status == 503
    turns().release()
    assert (await site.ask(site.urls(broken, "share")[0])).status == 404
    requests = {point["aioimageattach.result"]: count for point, count in observed.points(REQUESTS.name)}
    assert requests == {"refused": 1, "failed": 1}
    waits = {point.get("error.type"): count for point, count in observed.points(WAIT.name)}
    assert waits == {None: 2, "asyncio.exceptions.CancelledError": 1}


async def test_jobs_are_measured(observed: Observed, sqlite_database: Database, tmp_path: Path) -> None:
    """The wait and the duration of jobs for committed images, and the number of dropped jobs, are measured."""
    store = FileSystemStore(tmp_path, "/", fsync=False)
    sessions = await started(sqlite_database, worker.Base.metadata, store)
    async with ThumbnailWorker(store, [worker.Cover], sessions=sessions, max_waiting=2) as thumbnails:
        async with sessions.begin() as session:
            for number in range(5):
                session.add(product := worker.Product(id=number))
                await product.cover.from_blob(photo("chelsea"))
        await thumbnails.join()
    assert observed.points("aioimageattach.thumbnail.job.duration") == [({}, 2)]
    assert observed.points("aioimageattach.thumbnail.job.wait.duration") == [({}, 2)]
    assert observed.points("aioimageattach.thumbnail.job.refused") == [({}, 3)]
    spans = [span for span in observed.spans.get_finished_spans() if span.name == "aioimageattach.render"]
    jobs = {span.context.span_id for span in observed.spans.get_finished_spans() if span.name.endswith(".job")}
    assert len(jobs & {span.parent.span_id for span in spans if span.parent}) == 2


async def test_failed_jobs_have_the_class_of_the_error(observed: Observed) -> None:
    """A failed job has the class of its error, also if the runner returns the error."""
    store = MemoryStore()
    original = await put(Photo, store, b"not a picture")
    maker = ThumbnailMaker(store, [Photo])
    parsed = Original.parse(store.name_of(original.key))
    assert parsed is not None
    job = Job(parsed.name, [one.stem for one in all_thumbnails(maker, parsed)])
    error = await JobRunner(store, [Photo], None, None).run(job, Priority.NEW)
    assert isinstance(error, UnreadableImageError)
    [(attributes, _)] = observed.points("aioimageattach.thumbnail.job.duration")
    assert attributes == {"error.type": "aioimageattach.exc.UnreadableImageError"}


# --- log records -----------------------------------------------------------------------------------------------------


def test_fields_of_log_records() -> None:
    """The fields of log records have the same names as the attributes of spans."""
    assert log_fields("x.failed", StoreFileNotFoundError("secret"), count=2) == {
        "event.name": "aioimageattach.x.failed",
        "error.type": "aioimageattach.exc.StoreFileNotFoundError",
        "aioimageattach.count": 2,
    }
    assert log_fields("x.done") == {"event.name": "aioimageattach.x.done"}


PAGE = (ROOT / "docs" / "howto" / "monitoring.md").read_text("utf-8")
SOURCES = [path.read_text("utf-8") for path in (ROOT / "aioimageattach").rglob("*.py")]


def test_the_guide_lists_each_span_and_metric() -> None:
    """The guide lists the name of each span and metric."""
    for instrument in vars(_telemetry).values():
        if isinstance(instrument, Operation):
            assert f"| `{instrument.name.removesuffix('.duration')}` |" in PAGE
        elif isinstance(instrument, Counter | Timer):
            assert f"| `{instrument.name}` |" in PAGE


def test_the_guide_lists_each_event_and_field() -> None:
    """The guide lists the name of each log event and field, and every warning and error has an event."""
    calls = re.findall(r"log_fields\(\s*(\"[\w.]+\"|\w+),? ?([^)]*)", "\n".join(SOURCES))
    names = {"LEFT": _telemetry.LEFT, "_NOT_RENEWED": "s3.credentials_not_renewed"}
    events = {names.get(event, event.strip('"')) for event, _ in calls} - {"event"}
    fields = {name for _, arguments in calls for name in re.findall(r"(\w+)=", arguments)}
    assert len(events) > 10
    assert {f"`aioimageattach.{name}`" for name in events | fields} <= {
        *re.findall(r"^\| (`[\w.]+`) \|", PAGE, re.MULTILINE)
    }
    for source in SOURCES:
        for call in re.findall(
            r"_log\.(?:warning|error|exception)\((?:[^()]|\([^()]*(?:\([^()]*\))?[^()]*\))*\)", source
        ):
            assert "extra=" in call, call
