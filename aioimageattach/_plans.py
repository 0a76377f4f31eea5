"""What plans have in common: they are carried out item by item, and may work on so many at a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from ._threads import finish

__all__ = ["at_once", "carry_out"]

R = TypeVar("R")


async def carry_out(items: AsyncGenerator[R, None], callback: Callable[[R], object] | None) -> None:
    """Go through all items.

    Args:
        items: Closed at the end, also after an error of the callback.
        callback: Called with each item; awaited, if it is asynchronous.
    """
    async with aclosing(items) as running:
        async for item in running:
            result = None if callback is None else callback(item)
            if inspect.isawaitable(result):
                await result


async def at_once(works: AsyncIterator[Coroutine[Any, Any, R]], limit: int) -> AsyncGenerator[R, None]:
    """Do so many works at a time; yield their results as they come.

    Leaving the loop cancels what is under way, and waits for it.
    """
    under_way: set[asyncio.Task[R]] = set()
    try:
        async for work in works:
            under_way.add(asyncio.create_task(work))
            if len(under_way) >= limit:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while under_way:
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in under_way:
            task.cancel()
        if under_way:
            await finish(asyncio.wait(under_way))
