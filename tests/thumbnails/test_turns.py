"""The limit on the originals in progress, which all makers of an event loop share."""

from __future__ import annotations

import asyncio

import pytest

from aioimageattach.thumbnails._turns import Priority, Turns, turns

REQUEST, NEW, REST = Priority


class Line:
    """Work that waits for places, and the order in which it was admitted."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, name: str, priority: Priority, places: int = 1) -> None:
        """Start work with this name, which waits for a place."""

        async def wait() -> None:
            await self.turns.acquire(priority, places)
            self.order.append(name)

        self.tasks[name] = asyncio.create_task(wait())
        await asyncio.sleep(0)

    async def free(self) -> None:
        """Free a place, and let the next waiter continue."""
        self.turns.release()
        await asyncio.sleep(0)


async def test_requests_come_first() -> None:
    """Requests are admitted first, then new images, then the rest, each in the order of arrival."""
    line = Line()
    await line.join("first", REST)
    for name, priority in (("rest", REST), ("new", NEW), ("a", REQUEST), ("b", REQUEST), ("newer", NEW)):
        await line.join(name, priority)
    for _ in line.tasks:
        await line.free()
    assert line.order == ["first", "a", "b", "new", "newer", "rest"]
    assert line.turns.active == 0


async def test_one_place_is_reserved_for_requests() -> None:
    """Each caller has its own limit, and a waiter is never overtaken by one of a lower priority."""
    line = Line()
    await line.join("new", NEW, 1)
    await line.join("newer", NEW, 1)
    assert line.turns.is_awaited(NEW)
    assert not line.turns.is_awaited(REQUEST)
    await line.join("request", REQUEST, 2)
    assert line.order == ["new", "request"]
    await line.join("strict", REQUEST, 1)
    assert not line.turns.try_acquire(NEW, 9)
    await line.free()
    assert line.order == ["new", "request"]
    await line.free()
    assert line.order == ["new", "request", "strict"]


@pytest.mark.parametrize("admitted", [False, True])
async def test_a_cancelled_waiter_passes_its_place_on(admitted: bool) -> None:
    """The next waiter is admitted, also if the place became free in the same iteration of the event loop."""
    line = Line()
    await line.join("first", NEW)
    await line.join("leaving", REQUEST)
    await line.join("next", NEW)
    if admitted:
        line.turns.release()
    line.tasks["leaving"].cancel()
    await asyncio.wait([line.tasks["leaving"]])
    assert line.tasks["leaving"].cancelled()
    if not admitted:
        line.turns.release()
    await line.tasks["next"]
    assert line.order == ["first", "next"]
    assert line.turns.active == 1


async def test_a_place_is_freed_after_an_error() -> None:
    """A place is freed if the block raises an error."""
    with pytest.raises(ZeroDivisionError):
        async with turns().hold(NEW, 1):
            assert turns().active == 1
            raise ZeroDivisionError
    assert turns().active == 0
