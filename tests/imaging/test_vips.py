"""Loading libvips, its logger, and the conversion of its errors."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import weakref

import pytest
import pyvips

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError
from aioimageattach.imaging import _vips
from tests import photos


@pytest.mark.parametrize(("before", "after"), [(logging.NOTSET, logging.ERROR), (logging.DEBUG, logging.DEBUG)])
def test_the_logger_keeps_its_level(monkeypatch: pytest.MonkeyPatch, before: int, after: int) -> None:
    """A level that the host application has set is kept."""
    logger = logging.getLogger("pyvips")
    old = logger.level
    monkeypatch.setattr(_vips, "_module", None)
    try:
        logger.setLevel(before)
        assert _vips.libvips() is pyvips
        assert logger.level == after
    finally:
        logger.setLevel(old)


def test_threads_can_load_libvips_concurrently() -> None:
    """The first images of a process may be concurrent."""
    code = (
        "import threading\n"
        "from tests import photos\n"
        "from aioimageattach.imaging import Recipe, render\n"
        "seen = []\n"
        "def work(): seen.append(render(photos.photo('chelsea'), [Recipe(width=20)])[0].width)\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(seen)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([20] * 8)


def loaded() -> pyvips.Image:
    return pyvips.Image.jpegload_source(pyvips.Source.new_from_memory(photos.large()), access="sequential")


def test_images_opened_after_the_time_limit() -> None:
    """After the time limit, nothing more is decoded."""
    with pytest.raises(ImageTooLargeError, match="within 9 seconds"), _vips.watched("image/jpeg", 9) as watch:
        watch.stop()
        watch.add(loaded()).avg()


def test_the_time_limit_stops_a_decode() -> None:
    """Another thread can stop the loader while it decodes."""
    with pytest.raises(ImageTooLargeError), _vips.watched("image/jpeg", None) as watch:
        image = watch.add(loaded())
        threading.Timer(0.005, watch.stop).start()
        for _ in range(1000):
            image.thumbnail_image(3000).avg()
            image = watch.add(loaded())


class Memory(bytearray):
    """Memory that supports weak references."""


def test_memory_is_released_when_the_work_ends() -> None:
    """Memory is released when the work ends, not when the timer thread does, which takes a moment longer."""
    with _vips.watched("image/jpeg", 60) as watch:
        watch.hold(Memory())
        (reference,) = [weakref.ref(one) for one in watch._held]
        assert isinstance(reference(), Memory)
    assert reference() is None


@pytest.mark.parametrize(
    "error", [pyvips.Error("text of the decoder"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no character")]
)
def test_errors_of_libvips_are_converted(error: Exception) -> None:
    """Errors of libvips, even with text that is not UTF-8, become the cause of an error of this library."""
    with pytest.raises(UnreadableImageError) as header, _vips.header_errors("image/png"):
        raise error
    with pytest.raises(UnreadableImageError) as decoding, _vips.watched("image/png", 1):
        raise error
    for caught in (header, decoding):
        assert caught.value.__cause__ is error
        assert "text of the decoder" not in str(caught.value)
