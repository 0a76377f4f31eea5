"""A page of fifty users with their images: the SELECT, and one URL for each."""

from __future__ import annotations

import asyncio
import statistics
import time
from functools import partial
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine

from aioimageattach import store_context
from aioimageattach.stores import MemoryStore
from tests import photos

from .measure import Sample, Timer, save, say, summary
from .models import Sessions, User, prepared, sqlite

__all__ = ["run"]

USERS = 50


class _Counting(MemoryStore):
    """A store that counts reads."""

    reads = 0

    async def get_object(self, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        return await super().get_object(*args, **kwargs)


async def _page(sessions: Sessions) -> tuple[Sample, float]:
    with Timer() as timer:
        async with sessions() as session:
            users = (await session.scalars(select(User))).all()
            began = time.process_time()
            urls = [user.picture.find_thumbnail(width=150).locate() for user in users]
            passed = time.process_time() - began
    if len(set(urls)) != USERS:
        raise RuntimeError(f"expected {USERS} URLs, got {len(set(urls))}")
    return timer.sample, passed


def _count(counter: list[str], *args: Any) -> None:
    counter.append(args[2])


async def _measure(engine: AsyncEngine, rounds: int) -> None:
    store = _Counting()
    statements: list[str] = []
    async with prepared(engine) as sessions:
        async with sessions() as session:
            for _ in range(USERS):
                user = User()
                session.add(user)
                await user.picture.from_blob(photos.photo("chelsea"), store)
                await user.picture.generate_thumbnail(width=150, store=store)
            await session.commit()
        with store_context(store):
            await _page(sessions)
            event.listen(engine.sync_engine, "before_cursor_execute", partial(_count, statements))
            store.reads = 0
            await _page(sessions)
            count, reads = len(statements), store.reads
            found = [await _page(sessions) for _ in range(rounds)]
    one = 1e6 * statistics.median(passed for _, passed in found) / USERS
    page = summary([sample for sample, _ in found])
    say(f"  {count} statements, {reads} reads of the store, {page['wall_ms']:.1f} ms a page")
    say(f"  find_thumbnail() and locate(): {one:.1f} microseconds")
    save("urls", {"users": USERS, "statements": count, "reads": reads, "page": page, "one_us": one})


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``urls``."""
    asyncio.run(_measure(sqlite(), 3 * rounds))
