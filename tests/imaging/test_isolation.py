"""Worker processes: they answer as threads do, and are ended where nothing else ends what they do."""

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
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aioimageattach._threads import run_pixels
from aioimageattach.exc import (
    DeclarationError,
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from aioimageattach.imaging import DEFAULT_LIMITS, ImageLimits, Recipe, _wire, _worker, isolation, probe, render
from aioimageattach.imaging.limits import KNOWN_TYPES
from tests import photos
from tests.imaging import hooks
from tests.imaging.test_guard import packed, png_header
from tests.imaging.test_svg import nested

ALL = ImageLimits(types=KNOWN_TYPES)
ISOLATED = ImageLimits(types=KNOWN_TYPES, isolated=True)
WIDE = replace(ISOLATED, max_pixels=10**9, max_pixels_at_once=10**9, max_elements=10**13, max_metadata=10**9)


def hooked(hook: Callable[[Any], Any], **limits: Any) -> tuple[int, int]:
    [made] = render(photos.webp(), [Recipe(width=40, postprocess=hook, variant="x")], replace(ISOLATED, **limits))
    return made.width, made.height


def process() -> int:
    """The number of the worker that comes next."""
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
def test_a_worker_answers_as_a_thread_does(make: Callable[[], bytes]) -> None:
    """Headers and thumbnails are the same, byte for byte, in one process and the other."""
    recipes = [Recipe(width=64), Recipe(width=30, height=30, format="webp"), Recipe(ratio=0.1, animated=True)]
    assert probe(make(), ISOLATED) == probe(make(), ALL)
    assert render(make(), recipes, ISOLATED) == render(make(), recipes, ALL)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"no picture", ALL),
        (photos.photo("rocket")[:9_000], ALL),
        (photos.SVG, DEFAULT_LIMITS),
        (photos.png(), replace(ALL, max_side=100)),
        (photos.png(), replace(ALL, max_bytes=100)),
    ],
)
def test_errors_are_the_same(data: bytes, limits: ImageLimits) -> None:
    """Kind, text and attributes of an error are those that a thread gives, and the worker goes on."""
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
    """One picture after the other needs one process, which knows no ORM."""
    assert process() == process()
    assert hooked(hooks.loaded) == (1, 1)


def test_a_callable_may_use_the_whole_package() -> None:
    """The worker has a package without the ORM until somebody asks for more."""
    assert hooked(hooks.whole_package) == (2, 1)


def test_callables_are_found_by_name() -> None:
    """What runs in another process must be importable there; the error says so before anything is sent."""
    expected = render(photos.png(), [Recipe(width=40, postprocess=hooks.painted, variant="x")], ALL)
    assert expected == render(photos.png(), [Recipe(width=40, postprocess=hooks.painted, variant="x")], ISOLATED)
    with pytest.raises(DeclarationError, match="can be imported by their names"):
        hooked(lambda image: image)


def test_callables_that_the_worker_cannot_import_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that only this process finds gives an error that names it."""
    (tmp_path / "only_here.py").write_text("def hook(image):\n    return image\n")
    process()  # the worker's path is that of its start
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("only_here")
    with pytest.raises(DeclarationError, match="only_here"):
        hooked(module.hook)


def test_what_a_callable_raises_is_told() -> None:
    """An error of the user's code comes as one of ours that says what it was."""
    with pytest.raises(ImageError, match=r"preprocess or postprocess raised KeyError\('mine'\)"):
        hooked(hooks.raising)


def quadratic(segments: int) -> bytes:
    """A drawing of one line, criss-cross: twice as long takes four times as long."""
    points = "".join(f"L{number * 7919 % 1000} {number * 104_729 % 1000}" for number in range(segments))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="1000">'
        f'<path stroke="red" fill="none" d="M0 0{points}"/></svg>'
    ).encode()


def scans(count: int, side: int = 4000) -> bytes:
    """A grey progressive JPEG whose every scan makes one bit of one coefficient more exact (ITU T.81 G.1)."""
    blocks = (side // 8) ** 2

    def part(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body

    def scan(first: int, last: int, bits: int, data: bytes) -> bytes:
        return part(0xDA, bytes((1, 1, 0, first, last, bits))) + data

    def table(kind: int, symbol: int) -> bytes:  # one symbol, written as one bit
        return part(0xC4, bytes((kind, 1, *[0] * 15, symbol)))

    runs = -(-blocks // 16_384)  # ends of so many blocks at once: a bit for the symbol, and 14 of how many more
    empty = bytes(-(-runs * 15 // 8))
    size = side.to_bytes(2, "big")
    data = b"\xff\xd8" + part(0xDB, bytes((0, *[1] * 64))) + part(0xC2, b"\x08" + size + size + b"\1\1\x11\0")
    data += table(0x00, 0) + table(0x10, 0xE0) + scan(0, 0, 0, bytes(blocks // 8 + 1))
    steps = [(at, (bit + 1) % 13 << 4 | bit) for bit in range(12, -1, -1) for at in range(1, 64)]
    return data + b"".join(scan(at, at, bits, empty) for at, bits in steps[:count]) + b"\xff\xd9"


HARD: dict[str, Callable[[], bytes]] = {
    "a line of 50,000 segments": lambda: quadratic(50_000),
    "an SVG whose elements use each other": lambda: nested("use"),
    "a progressive JPEG of 800 scans": lambda: scans(800),
}


@pytest.mark.parametrize("name", HARD)
def test_what_no_decoder_can_be_told_to_stop_is_ended(name: str) -> None:
    """Time is over when it is over, whatever the decoder is in the middle of; the next picture is not affected."""
    data = HARD[name]()
    with pytest.raises(ImageTooLargeError, match=r"within 0.3 seconds \(timeout\)") as caught:
        render(data, [Recipe(width=300)], replace(WIDE, timeout=0.3))
    assert caught.value.limit == 0.3
    assert render(photos.webp(), [Recipe(width=40)], ISOLATED)[0].width == 40


def interlaced() -> bytes:
    """100 megapixels, which are decoded as a whole, in 300 kB."""
    rows = sum(  # the seven passes of PNG 8.2
        ((10_000 - y0 + dy - 1) // dy) * (1 + ((10_000 - x0 + dx - 1) // dx) * 3)
        for x0, y0, dx, dy in (
            (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
        )
    )  # fmt: skip
    return photos.png_file(png_header(10_000, 10_000, interlaced=1), packed(rows))


def test_memory_is_limited() -> None:
    """A picture that takes more than it may is refused by the name of the limit, and the next one is not affected."""
    data = interlaced()
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
        (hooks.gone, ImageError, "status 7"),
    ],
)
def test_a_worker_that_dies_takes_only_its_picture_along(
    hook: Callable[[Any], Any], kind: type[ImageError], message: str
) -> None:
    """However it ends, the caller gets an error of ours and the next picture a new worker."""
    before = process()
    with pytest.raises(kind, match=message):
        hooked(hook)
    assert before != process()


def test_a_worker_that_dies_while_it_waits_is_replaced() -> None:
    """Nobody's picture is blamed for it."""
    before = process()
    for pid in children():
        os.kill(pid, 9)
    time.sleep(0.05)
    assert before != process()


def children() -> set[int]:
    """The processes that this one has started and not yet waited for."""
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in path.read_text().split()}
    return found


def test_workers_are_replaced_after_many_pictures() -> None:
    """A process does not live for ever, lest its memory be used up by crumbs."""
    before = process()
    for _ in range(201):
        probe(photos.SVG, ISOLATED)
    assert before != process()


def test_time_without_end() -> None:
    """Memory can be limited alone."""
    assert hooked(hooks.painted, timeout=None)[0] == 40


def test_a_worker_is_confined() -> None:
    """It can write no file, and where the kernel lets it be shut off, it has no network."""
    width, height = hooked(hooks.confined)
    assert width == 2
    alone = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    alone_as_user = subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True, check=False)
    assert (height == 2) == (alone.returncode == 0 or alone_as_user.returncode == 0)


async def test_the_loop_is_not_blocked_and_workers_are_as_many_as_threads() -> None:
    """Pictures in several threads and loops are read side by side."""
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


def test_a_failed_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lets no process be started says so, and nothing is left open."""
    import multiprocessing

    multiprocessing.set_executable("/nowhere/python")
    with ThreadPoolExecutor(8) as pool, warnings.catch_warnings(record=True) as caught:
        gate = threading.Barrier(8)

        def work() -> str:
            gate.wait()
            try:
                return str(probe(photos.png(), replace(ISOLATED)))
            except ImageError as error:
                return str(error)

        try:
            told = {future.result() for future in [pool.submit(work) for _ in range(8)]}
        finally:
            multiprocessing.set_executable(sys.executable)
        gc.collect()
    assert any("cannot be started" in text for text in told), told
    assert caught == []


ATTACH = """
import sys
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging.metadata import strip_probed
from tests import photos
limits = ImageLimits(isolated=True)
found = probe(photos.oriented(6), limits)
stripped = strip_probed(photos.oriented(6), found)
assert probe(stripped, limits) == found
assert render(stripped, [Recipe(width=20)], limits)[0].width == 20
assert "pyvips" not in sys.modules
"""


def test_only_workers_load_a_decoder() -> None:
    """A program that probes, strips and resizes in workers has no libvips of its own, and may fork at any time."""
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


def test_forks_and_the_end() -> None:
    """A forked process starts workers of its own and leaves its parent's alone; none outlives the interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "default::DeprecationWarning", "-c", PROGRAM],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_end_with_their_parent() -> None:
    """A parent that is killed leaves no process behind."""
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
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()] == []


def test_a_call_that_is_interrupted_ends_its_worker() -> None:
    """Whoever is interrupted does not wait for the picture, and the next one gets another worker."""
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


def test_what_a_worker_does_without_a_process() -> None:
    """A worker serves whoever has the other end of its socket, one request after the other, until that is closed."""
    before = [resource.getrlimit(kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)]
    ours, theirs = socket.socketpair()

    def work() -> None:
        _worker.confine()
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        resource.setrlimit(resource.RLIMIT_CORE, before[1])
        _worker.serve(theirs)

    def asked(head: bytes, body: bytes) -> tuple[Any, bytes]:
        _wire.send(ours, head, [memoryview(body)])
        found, answer = _wire.receive(ours, 10**8)
        return json.loads(found), bytes(answer)

    thread = threading.Thread(target=work)  # what it shuts off, it shuts off for itself alone
    thread.start()
    limits = replace(ISOLATED, max_memory=2**60)
    recipe = Recipe(width=20)
    [expected] = render(photos.png(), [recipe], ALL)
    assert asked(pickle.dumps((limits, None)), photos.png())[0]["probe"]["width"] == 451
    assert asked(pickle.dumps((limits, [recipe])), photos.png())[1] == expected.blob
    endless = replace(limits, timeout=None)
    assert asked(pickle.dumps((endless, [Recipe(width=2, postprocess=hooks.raising)])), photos.png())[0]["error"]
    assert asked(pickle.dumps((limits, None)), photos.png()[:90])[0]["error"] == "UnreadableImageError"
    assert asked(b"no pickle", b"")[0]["error"] == "DeclarationError"
    ours.close()
    thread.join()


@pytest.mark.parametrize("message", [b"", b"short", bytes(7) + b"\xff" * 9, b"\xff" * 16, bytes(15) + b"\x09short"])
def test_messages_that_cannot_be(message: bytes) -> None:
    """What ends too early, or speaks of more than is to be had, ends the conversation."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(message)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            _wire.receive(ours, 1000)


def test_a_pool_ends_its_workers_and_a_forked_one_leaves_them() -> None:
    """At the end of a process its workers end; in a forked process they are another's."""
    before = process()
    isolation._pool.close()
    assert before != process()
    pool, known = isolation._Pool(), children()
    pool.give_back(pool.start())
    [started] = children() - known
    pool.forget()
    pool.close()
    assert os.waitpid(started, 0)[1] == 0  # its socket is closed, so it has ended by itself; nobody has waited for it
