"""The places for originals in progress, which all makers of an event loop share."""

from __future__ import annotations

import asyncio

import pytest

from aioimageattach.thumbnails._turns import Priority, Turns, turns

REQUEST, NEW, REST = Priority


class Line:
    """Work that waits for places, and the order in which it got them."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, name: str, priority: Priority, places: int = 1) -> None:
        """Let work of this name wait."""

        async def wait() -> None:
            await self.turns.acquire(priority, places)
            self.order.append(name)

        self.tasks[name] = asyncio.create_task(wait())
        await asyncio.sleep(0)

    async def free(self) -> None:
        """Free a place, and let the next one continue."""
        self.turns.release()
        await asyncio.sleep(0)


async def test_requests_come_first() -> None:
    """Then new pictures, then the rest, and each in the order of their arrival."""
    line = Line()
    await line.join("first", REST)
    for name, priority in (("rest", REST), ("new", NEW), ("a", REQUEST), ("b", REQUEST), ("newer", NEW)):
        await line.join(name, priority)
    for _ in line.tasks:
        await line.free()
    assert line.order == ["first", "a", "b", "new", "newer", "rest"]
    assert line.turns.active == 0


async def test_requests_have_a_place_that_other_work_has_not() -> None:
    """Each caller has its own number of places; nobody overtakes a waiter of a higher priority."""
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
async def test_who_stops_waiting_gives_the_place_to_the_next(admitted: bool) -> None:
    """Also if the place became free in the same turn of the event loop."""
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
    """The block may fail."""
    with pytest.raises(ZeroDivisionError):
        async with turns().hold(NEW, 1):
            assert turns().active == 1
            raise ZeroDivisionError
    assert turns().active == 0
