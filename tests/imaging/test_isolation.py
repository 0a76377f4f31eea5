"""Worker processes: their results equal those of threads, and they can be terminated at any time."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from aioimageattach._threads import run_pixels
from aioimageattach.exc import (
    DeclarationError,
    ImageAttachError,
    ImageError,
    ImageTooLargeError,
    ProcessingError,
    UnreadableImageError,
    UnsupportedImageError,
)
from aioimageattach.imaging import ImageLimits, Recipe, _wire, _worker, probe, render
from aioimageattach.imaging import (
    _isolation as isolation,
)
from aioimageattach.imaging._limits import DEFAULT_LIMITS, KNOWN_TYPES
from aioimageattach.imaging._render import render_with_preview
from tests import photos
from tests.descriptors import count_all
from tests.imaging import hooks
from tests.imaging.test_guard import packed, png_header
from tests.imaging.test_svg import nested

ALL = ImageLimits(types=KNOWN_TYPES)
ISOLATED = ImageLimits(types=KNOWN_TYPES, isolated=True)
WIDE = replace(ISOLATED, max_pixels=10**9, max_memory=10**10, max_elements=10**13, max_metadata=10**9)


def hooked(hook: Callable[[Any], Any], **limits: Any) -> tuple[int, int]:
    [made] = render(photos.webp(), [Recipe(width=40, postprocess=hook, variant="x")], replace(ISOLATED, **limits))
    return made.width, made.height


def process() -> int:
    """Return the process id of the next worker."""
    return hooked(hooks.process)[0]


FILES: list[Callable[[], bytes]] = [
    lambda: photos.photo("coffee"),
    photos.progressive,
    photos.transparent_png,
    photos.animated_gif,
    photos.animated_webp,
    photos.avif,
    photos.tiff,
    lambda: photos.SVG,
    photos.pdf,
]


@pytest.mark.parametrize("make", FILES)
def test_results_equal_those_of_a_thread(make: Callable[[], bytes]) -> None:
    """Headers and thumbnails are identical, byte for byte, in a worker and in this process."""
    recipes = [Recipe(width=64), Recipe(width=30, height=30, format="webp"), Recipe(ratio=0.1, animated=True)]
    assert probe(make(), ISOLATED) == probe(make(), ALL)
    assert render(make(), recipes, ISOLATED) == render(make(), recipes, ALL)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"no picture", ALL),
        (photos.photo("rocket")[:9_000], replace(ALL, verify="complete")),
        (photos.SVG, DEFAULT_LIMITS),
        (photos.png(), replace(ALL, max_side=100)),
        (photos.png(), replace(ALL, max_bytes=100)),
    ],
)
def test_errors_equal_those_of_a_thread(data: bytes, limits: ImageLimits) -> None:
    """Class, message and attributes of an error equal those of a thread, and the worker remains usable."""
    before = process()

    def failed(limits: ImageLimits) -> ImageError:
        with pytest.raises(ImageError) as caught:
            render(data, [Recipe(width=40)], limits)
        return caught.value

    expected, found = failed(limits), failed(replace(limits, isolated=True))
    assert (type(expected), str(expected), vars(expected)) == (type(found), str(found), vars(found))
    assert isinstance(found, UnreadableImageError | UnsupportedImageError | ImageTooLargeError)
    assert before == process()


def test_worker_is_kept_for_the_next_picture() -> None:
    """Consecutive images use one process, which does not import the ORM."""
    assert process() == process()
    assert hooked(hooks.loaded) == (1, 1)


def test_a_callable_can_use_the_whole_package() -> None:
    """The worker imports the ORM only if a callable uses a name that needs it."""
    assert hooked(hooks.whole_package) == (2, 1)


def test_callables_are_found_by_name() -> None:
    """Callables must be importable by name; otherwise an error is raised before anything is sent."""
    expected = render(photos.png(), [Recipe(width=40, postprocess=hooks.painted, variant="x")], ALL)
    assert expected == render(photos.png(), [Recipe(width=40, postprocess=hooks.painted, variant="x")], ISOLATED)
    with pytest.raises(DeclarationError, match="which a worker process can import by name"):
        hooked(lambda image: image)


def test_callables_that_a_worker_cannot_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names a module that only this process can import."""
    (tmp_path / "only_here.py").write_text("def hook(image):\n    return image\n")
    process()  # the worker's path is set when it starts
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("only_here")
    with pytest.raises(DeclarationError, match="only_here"):
        hooked(module.hook)


def test_errors_of_callables_are_described() -> None:
    """An error raised by a callable becomes an error of this library that describes it."""
    with pytest.raises(ProcessingError, match=r"preprocess or postprocess raised KeyError\('mine'\)"):
        hooked(hooks.raising)


def quadratic(segments: int) -> bytes:
    """Return a drawing of one criss-cross line, whose rendering time grows with the square of its length."""
    points = "".join(f"L{number * 7919 % 1000} {number * 104_729 % 1000}" for number in range(segments))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="1000">'
        f'<path stroke="red" fill="none" d="M0 0{points}"/></svg>'
    ).encode()


def scans(count: int, side: int = 4000) -> bytes:
    """Return a grey progressive JPEG in which every scan refines one bit of one coefficient (ITU T.81 G.1)."""
    blocks = (side // 8) ** 2

    def part(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body

    def scan(first: int, last: int, bits: int, data: bytes) -> bytes:
        return part(0xDA, bytes((1, 1, 0, first, last, bits))) + data

    def table(kind: int, symbol: int) -> bytes:  # one symbol, coded as one bit
        return part(0xC4, bytes((kind, 1, *[0] * 15, symbol)))

    runs = -(-blocks // 16_384)  # end-of-band runs: one bit for the symbol, and 14 bits for the length
    empty = bytes(-(-runs * 15 // 8))
    size = side.to_bytes(2, "big")
    data = b"\xff\xd8" + part(0xDB, bytes((0, *[1] * 64))) + part(0xC2, b"\x08" + size + size + b"\1\1\x11\0")
    data += table(0x00, 0) + table(0x10, 0xE0) + scan(0, 0, 0, bytes(blocks // 8 + 1))
    steps = [(at, (bit + 1) % 13 << 4 | bit) for bit in range(12, -1, -1) for at in range(1, 64)]
    return data + b"".join(scan(at, at, bits, empty) for at, bits in steps[:count]) + b"\xff\xd9"


HARD: dict[str, Callable[[], bytes]] = {
    "a line of 50,000 segments": lambda: quadratic(50_000),
    "an SVG whose elements use each other": lambda: nested("use"),
    "a progressive JPEG of 800 scans": lambda: scans(800, 2000),
}


@pytest.mark.parametrize("name", HARD)
def test_the_time_limit_holds_for_every_decoder(name: str) -> None:
    """The time limit applies regardless of what the decoder is doing, and the next image is not affected.

    A decoder that checks the time stops by itself; otherwise the kernel terminates its process.
    """
    data = HARD[name]()
    with pytest.raises(ImageTooLargeError, match=r"within 0\.1 seconds") as caught:
        render(data, [Recipe(width=300)], replace(WIDE, timeout=0.1))
    assert caught.value.limit == 0.1
    assert render(photos.webp(), [Recipe(width=40)], ISOLATED)[0].width == 40


@cache
def interlaced(side: int) -> bytes:
    """Return a PNG that is decoded as a whole; 100 megapixels take 300 kB."""
    rows = sum(  # the seven passes (PNG 8.2)
        ((side - y0 + dy - 1) // dy) * (1 + ((side - x0 + dx - 1) // dx) * 3)
        for x0, y0, dx, dy in (
            (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
        )
    )  # fmt: skip
    return photos.png_file(png_header(side, side, interlaced=1), packed(rows))


def test_memory_is_limited() -> None:
    """An image that needs too much memory is rejected with the name of the limit; the next one is not affected."""
    data = interlaced(10_000)
    with pytest.raises(ImageTooLargeError, match=r"200,000,000 bytes of memory \(max_memory\)") as caught:
        render(data, [Recipe(width=300)], replace(WIDE, max_memory=200_000_000))
    assert caught.value.limit == 200_000_000
    assert process() == process()


@pytest.mark.parametrize(
    ("hook", "kind", "message"),
    [
        (hooks.greedy, ImageTooLargeError, "max_memory"),
        (hooks.killed, ImageTooLargeError, "max_memory"),
        (hooks.crashed, UnreadableImageError, "SIGSEGV"),
        (hooks.gone, ProcessingError, "status 7"),
    ],
)
def test_a_dead_worker_is_replaced(hook: Callable[[Any], Any], kind: type[ImageAttachError], message: str) -> None:
    """However a worker dies, the caller gets an error of this library, and the next image gets a new worker."""
    before = process()
    with pytest.raises(kind, match=message):
        hooked(hook)
    assert before != process()


@pytest.mark.parametrize("hook", [hooks.greedy, hooks.killed, hooks.crashed, hooks.gone, hooks.sleeping, hooks.raising])
def test_a_worker_leaves_nothing(hook: Callable[[Any], Any]) -> None:
    """However a worker ended, no zombie, open file or additional worker remains."""
    isolation._pool.close()
    process()
    files, processes = count_all(), len(children())
    for _ in range(2):
        with pytest.raises(ImageAttachError):
            hooked(hook, timeout=0.1)
        process()
    assert (files, processes) == (count_all(), len(children()))
    assert all("Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in children())


def sampled(*cases: Any) -> list[Any]:
    """Return every third case, each of which needs a worker; the others run if all tests are requested."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.thorough] * bool(number % 3))
        for number, case in enumerate(cases)
    ]


def answer(blob: bytes, *, count: int = 1, **changed: Any) -> tuple[bytes, bytes]:
    fields = {"size": len(blob), "width": 20, "height": 20, "mimetype": "image/webp"} | changed
    return json.dumps({"renderings": [list(fields.values())] * count}).encode(), blob


def told(error: str, text: Any = "x", **fields: Any) -> tuple[bytes, bytes]:
    return json.dumps({"error": error, "text": text, "fields": fields}).encode(), b""


@pytest.mark.parametrize(
    ("head", "body"),
    sampled(
        (b"no JSON", b""),
        (b"[" * 100_000, b""),
        (b"\xff", b""),
        (b"[]", b""),
        (b"3", b""),
        (b"{}", b""),
        (b'{"renderings": 3}', b""),
        (b'{"renderings": []}', b""),
        (b'{"renderings": [[]]}', b""),
        answer(b"<html><script>alert(1)</script>"),
        answer(b"<html><script>alert(1)</script>", mimetype="text/html"),
        answer(photos.webp(), count=2),
        answer(photos.webp(), size=2),
        answer(photos.webp(), size=-2),
        answer(photos.webp(), size=10**6),
        answer(photos.webp(), size=True),
        answer(photos.webp(), width="1; DROP TABLE"),
        answer(photos.webp(), width=1e9),
        answer(photos.webp(), width=10**9),
        answer(photos.webp(), height=0),
        answer(photos.webp(), mimetype="image/png"),
        answer(photos.png(), mimetype="image/png"),
        answer(photos.webp(), mimetype=["image/webp"]),
        told("SystemExit"),
        told("UnreadableImageError", __class__="x"),
        told("UnreadableImageError", ["x"]),
        told("StoreFileNotFoundError"),
        told("UnsupportedImageError", allowed=[{}]),
    ),
)
def test_invalid_responses_of_a_compromised_worker(head: bytes, body: bytes) -> None:
    """An invalid response raises an error of this library, and the worker is not used again."""
    before = process()
    with pytest.raises(ProcessingError, match="sent an invalid response"):
        hooked(partial(hooks.answering, head=head, body=body), timeout=20)
    assert before != process()


@pytest.mark.parametrize(
    "preview",
    sampled(
        None,
        {},
        {"thumbhash": "", "colour": "#ffffff"},
        {"thumbhash": "AAAA", "colour": "#ffffff"},
        {"thumbhash": "A" * 40, "colour": "#ffffff"},
        {"thumbhash": "<script>", "colour": "#ffffff"},
        {"thumbhash": "AAAAAAAA", "colour": "red;background:url(//x)"},
        {"thumbhash": 7, "colour": "#ffffff"},
        {"thumbhash": "AAAAAAAA", "colour": 7},
        {"thumbhash": "AAAAAAAA", "colour": "#ffffff", "more": 1},
    ),
)
def test_invalid_previews_are_rejected(preview: Any) -> None:
    """A ThumbHash of invalid length or an invalid colour is rejected."""
    before = process()
    hooked(partial(hooks.prepared, head=json.dumps({"renderings": [], "preview": preview}).encode()))
    with pytest.raises(ProcessingError, match="sent an invalid response"):
        render_with_preview(photos.webp(), [], ISOLATED)
    assert before != process()


@pytest.mark.parametrize(
    "changed",
    sampled(
        {"width": 0},
        {"height": 10**9},
        {"width": 20_000, "height": 20_000},
        {"frames": -1},
        {"orientation": "6"},
        {"has_alpha": 1},
        {"mimetype": "text/html"},
        {"mimetype": "image/png"},
        {"mimetype": ["image/webp"]},
        {"more": 1},
    ),
)
def test_invalid_headers_are_rejected(changed: dict[str, Any]) -> None:
    """The numbers in a response must be within the limits, and the type must match the first bytes."""
    fields = {"width": 3, "height": 3, "mimetype": "image/webp", "frames": 1, "orientation": 1, "has_alpha": False}
    head = json.dumps({"probe": fields | changed}).encode()
    before = process()
    prepared = partial(hooks.prepared, head=head)
    hooked(prepared)
    with pytest.raises(ProcessingError, match="sent an invalid response"):
        probe(photos.webp(), ISOLATED)
    assert before != process()


def test_slow_responses_are_stopped() -> None:
    """The time limit of a message applies to the whole message, not to each byte."""
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.01):
            theirs.sendall(b"\0")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with ours, theirs, pytest.raises(TimeoutError):
            try:
                while True:
                    _wire.receive(ours, 1000, 0.1)
            finally:
                over.set()
                thread.join()
    finally:
        over.set()


def test_a_worker_has_no_secrets_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has no secrets in its environment, only what its libraries need, such as the location of fonts."""
    for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "SECRET_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "canary-of-a-secret")
    monkeypatch.setenv("FONTCONFIG_PATH", "/etc/fonts")
    isolation._pool.close()
    known = children()
    process()
    [pid] = children() - known
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"canary" not in environment
    assert b"FONTCONFIG_PATH=/etc/fonts" in environment
    assert set(os.listdir(f"/proc/{pid}/fd")) >= {"0", "1", "2"}
    isolation._pool.close()


def test_an_idle_worker_that_dies_is_replaced() -> None:
    """A worker that dies while it is idle causes no error."""
    before = process()
    for pid in children():
        os.kill(pid, 9)
    time.sleep(0.05)
    assert before != process()


def children() -> set[int]:
    """Return the child processes that have not been reaped."""
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in path.read_text().split()}
    return found


def test_workers_are_replaced_after_many_pictures() -> None:
    """A worker is replaced after a number of images, before its heap fragments."""
    before = process()
    for _ in range(201):
        probe(photos.SVG, ISOLATED)
    assert before != process()


def test_no_time_limit() -> None:
    """Memory can be limited without a time limit."""
    assert hooked(hooks.painted, timeout=None)[0] == 40


def test_a_worker_is_confined() -> None:
    """A worker cannot write files, and has no network if the kernel permits it."""
    width, height = hooked(hooks.confined)
    assert width == 2
    alone = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    alone_as_user = subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True, check=False)
    assert (height == 2) == (alone.returncode == 0 or alone_as_user.returncode == 0)


async def test_each_thread_has_a_worker() -> None:
    """Images in several threads and event loops are read in parallel."""
    data = photos.photo("coffee")
    before = children()
    expected = await run_pixels(render, data, [Recipe(width=50)], ALL)

    async def work() -> Any:
        return await asyncio.gather(*(run_pixels(render, data, [Recipe(width=50)], ISOLATED) for _ in range(12)))

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(asyncio.run, work())
        results = await work() + await asyncio.wrap_future(other)
    assert [expected] * 24 == results
    assert len(children() - before) <= len(os.sched_getaffinity(0)) + 1


def test_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a process cannot be started, the error says so, and no file stays open."""
    import multiprocessing

    isolation._pool.close()  # an idle worker of another test would be used instead
    multiprocessing.set_executable("/nowhere/python")
    with ThreadPoolExecutor(8) as pool, warnings.catch_warnings(record=True) as caught:
        gate = threading.Barrier(8)

        def work() -> str:
            gate.wait()
            try:
                return str(probe(photos.png(), replace(ISOLATED)))
            except (ImageError, ProcessingError) as error:
                return str(error)

        try:
            told = {future.result() for future in [pool.submit(work) for _ in range(8)]}
        finally:
            multiprocessing.set_executable(sys.executable)
        gc.collect()
    assert any("could not be started" in text for text in told), told
    assert caught == []


ATTACH = """
import sys
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._metadata import strip_probed
from tests import photos
limits = ImageLimits(isolated=True)
found = probe(photos.oriented(6), limits)
stripped = strip_probed(photos.oriented(6), found)
assert probe(stripped, limits) == found
assert render(stripped, [Recipe(width=20)], limits)[0].width == 20
assert "pyvips" not in sys.modules
"""


def test_only_workers_load_a_decoder() -> None:
    """A program that probes, strips and resizes in workers does not load libvips, and may fork at any time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", ATTACH], check=True, timeout=60, env=environment)


PROGRAM = """
import os, sys, threading
from aioimageattach.imaging import ImageLimits, Recipe, render
from tests import photos
from tests.imaging.hooks import process
LIMITS = ImageLimits(isolated=True)
def number():
    return render(photos.webp(), [Recipe(width=9, postprocess=process, variant="x")], LIMITS)[0].width
first = number()
pid = os.fork()
if pid == 0:
    os._exit(0 if number() != first else 1)
assert os.waitpid(pid, 0)[1] == 0
assert number() == first
thread = threading.Thread(target=number)
thread.start()
"""


def test_forked_processes() -> None:
    """A forked process starts its own workers and leaves its parent's alone; none outlives the interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "default::DeprecationWarning", "-c", PROGRAM],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def left(pids: list[int]) -> list[int]:
    """Return the processes that have not ended after a while."""
    deadline = time.monotonic() + 20
    while True:
        found = [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.thorough), "spawn"])
def test_workers_of_daemonic_processes(method: str) -> None:
    """Daemonic processes of multiprocessing, which may not have children of that module, can have workers."""
    code = (
        "import multiprocessing\n"
        "from tests.imaging import hooks\n"
        f"host = multiprocessing.get_context({method!r}).Process(target=hooks.host, daemon=True)\n"
        "hooks.host()\n"
        "host.start(); host.join(); raise SystemExit(host.exitcode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "default::DeprecationWarning", "-c", code],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_of_a_server() -> None:
    """Two uvicorn processes handle concurrent requests; no worker remains after they are stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["uvicorn", "tests.imaging.hooks:app", "--port", str(port), "--workers", "2", "--lifespan", "off"]
    with subprocess.Popen(
        [sys.executable, "-m", *command, "--log-level", "error"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as server:

        def ask(_: int) -> list[int]:
            deadline = time.monotonic() + 30
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                        found: list[int] = json.load(answer)
                        return found
                except urllib.error.URLError:  # the server does not listen yet
                    assert server.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)

        try:
            with ThreadPoolExecutor(8) as pool:
                answers = [*pool.map(ask, range(16))]
        finally:
            server.terminate()
        said, _ = server.communicate(timeout=30)
    assert said == b""
    assert all(answers)
    assert left([pid for pids in answers for pid in pids]) == []


async def test_cancelled_callers_leave_nothing() -> None:
    """A cancelled call ends with its image, or at its time limit."""
    others = count_all() - len(isolation._pool._all)
    calls = [asyncio.create_task(run_pixels(hooked, hooks.sleeping, timeout=0.3)) for _ in range(6)]
    await asyncio.wait(calls, timeout=0.2)
    for call in calls:
        call.cancel()
    assert all(isinstance(result, BaseException) for result in await asyncio.gather(*calls, return_exceptions=True))
    assert await run_pixels(process)
    assert others == count_all() - len(isolation._pool._all)
    assert {worker._process.pid for worker in isolation._pool._all} <= children()
    assert all(worker.alive for worker in isolation._pool._all)


def test_workers_end_with_their_parent() -> None:
    """No worker remains after its parent is killed."""
    code = (
        "import sys, time; from tests.imaging.test_isolation import *\n"
        "process(); print(*children(), flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert pids
    assert left(pids) == []


def test_an_interrupted_call_ends_its_worker() -> None:
    """An interrupted call does not wait for the image, and the next image gets another worker."""
    before = process()

    class Enough(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Enough

    handler = signal.signal(signal.SIGUSR1, interrupt)
    clock = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    clock.start()
    try:
        with pytest.raises(Enough):
            hooked(hooks.sleeping)
    finally:
        clock.join()
        signal.signal(signal.SIGUSR1, handler)
    assert before != process()


Ask = Callable[..., tuple[dict[str, Any], bytes]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Run a worker in a thread of this process, and send it an encoded request."""
    before = [resource.getrlimit(kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)]
    ours, theirs = socket.socketpair()

    def work() -> None:
        _worker.confine()
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        resource.setrlimit(resource.RLIMIT_CORE, before[1])
        _worker.serve(theirs)

    def asked(body: bytes, recipes: list[Recipe] | None = None, *, preview: bool = False, **limits: Any) -> Any:
        chosen = replace(WIDE, **{"max_memory": 2**60} | limits)
        return sent(pickle.dumps((chosen, recipes, preview)), body)

    def sent(head: bytes, body: bytes) -> tuple[Any, bytes]:
        _wire.send(ours, head, [memoryview(body)])
        found, answer = _wire.receive(ours, 10**8)
        return json.loads(found), bytes(answer)

    asked.sent = sent  # type: ignore[attr-defined]
    thread = threading.Thread(target=work)  # the restrictions apply to this thread only
    thread.start()
    try:
        yield asked
    finally:
        ours.close()
        thread.join()


def test_a_worker_in_a_thread(ask: Ask) -> None:
    """A worker responds to one request after another until the other end of its socket is closed."""
    recipe = Recipe(width=20)
    [expected] = render(photos.png(), [recipe], ALL)
    assert ask(photos.png())[0]["probe"]["width"] == 451
    assert ask(photos.png(), [recipe])[1] == expected.blob
    assert ask(photos.png(), [], preview=True)[0]["preview"]["colour"]
    assert (
        ask(photos.png(), [Recipe(width=2, postprocess=hooks.raising)], timeout=None)[0]["error"] == "ProcessingError"
    )
    assert ask(photos.png()[:90])[0]["error"] == "UnreadableImageError"
    assert ask.sent(b"no pickle", b"")[0]["error"] == "DeclarationError"  # type: ignore[attr-defined]


def using(hook: Callable[[Any], Any]) -> list[Recipe]:
    return [Recipe(width=40, postprocess=hook, variant="x")]


@pytest.mark.parametrize(
    ("data", "recipes", "limits", "error", "is_memory"),
    [
        (lambda: interlaced(10_000), [Recipe(width=40)], {}, "ImageTooLargeError", True),
        (photos.webp, using(hooks.greedy), {}, "ProcessingError", True),
        (photos.webp, using(hooks.swollen), {}, "ProcessingError", True),
        (photos.webp, using(hooks.hoarding), {}, "ProcessingError", True),
        (photos.webp, using(hooks.raising), {}, "ProcessingError", False),
        (photos.webp, [Recipe(width=40)], {"max_side": 9}, "ImageTooLargeError", False),
        (lambda: photos.png()[:90], [Recipe(width=40)], {}, "UnreadableImageError", False),
        (
            lambda: photos.png()[:-9_000],
            [Recipe(width=40)],
            {"verify": "complete"},
            "UnreadableImageError",
            False,
        ),
    ],
    ids=["header", "Python", "libvips", "taken by others", "a callable", "another limit", "header broken", "pixels"],
)
def test_errors_from_a_lack_of_memory(
    ask: Ask, data: Callable[[], bytes], recipes: list[Recipe], limits: dict[str, Any], error: str, is_memory: bool
) -> None:
    """An image that needs too much memory is distinguished from a damaged one, whatever error the decoder reports."""
    room = _worker._own_memory() + 200_000_000
    try:
        found, _ = ask(data(), recipes, max_memory=room, **limits)
    finally:
        hooks.hoard.clear()
    assert (found["error"], found["memory"]) == (error, is_memory)


def test_a_worker_without_a_free_file_descriptor(ask: Ask) -> None:
    """Without a free file descriptor, a worker assumes its memory use."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        found, _ = ask(photos.png())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found["probe"]["width"] == 451


def test_a_damaged_picture_that_needs_much_memory() -> None:
    """A damaged image is not reported as too large, even if its pixels need more than half of the memory."""
    limits = replace(WIDE, max_memory=300_000_000, verify="complete")
    assert render(interlaced(6_000), [Recipe(width=40)], limits)[0].width == 40
    with pytest.raises(UnreadableImageError, match="damaged pixels"):
        render(interlaced(6_000)[:-30_000], [Recipe(width=40)], limits)


@pytest.mark.parametrize("message", [b"", b"short", bytes(7) + b"\xff" * 9, b"\xff" * 16, bytes(15) + b"\x09short"])
def test_invalid_messages(message: bytes) -> None:
    """A message that is truncated, or announces too many bytes, ends the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(message)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            _wire.receive(ours, 1000)


def test_a_pool_ends_only_its_own_workers() -> None:
    """Workers end with their process; a forked process leaves its parent's workers alone."""
    before = process()
    isolation._pool.close()
    assert before != process()
    pool, known = isolation._Pool(), children()
    pool.release(pool.start())
    [started] = children() - known
    pool.forget()
    pool.close()
    assert os.waitpid(started, 0)[1] == 0  # its socket is closed, so it has ended without being reaped
