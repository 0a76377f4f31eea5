"""One prepared owner is copied into several sessions that flush concurrently: each row has its own file."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.exc import ImageAttachError
from tests.faults.models import User
from tests.faults.rig import Rig
from tests.faults.stores import Stop

Put = Callable[[Rig, AsyncSession, User, int], Coroutine[Any, Any, object]]


async def prepared(rig: Rig) -> User:
    """Return an owner without a session, with a file in memory only."""
    user = User()
    await rig.replace(user, b"new")
    return user


async def by_deepcopy(rig: Rig, session: AsyncSession, template: User, number: int) -> None:
    user = copy.deepcopy(template)
    user.id = number
    session.add(user)


async def by_merge(rig: Rig, session: AsyncSession, template: User, number: int) -> None:
    template.id = number
    await session.merge(template)


BY: dict[str, Put] = {"deepcopy": by_deepcopy, "merge": by_merge}


@pytest.mark.parametrize(
    ("by", "after", "end"),
    [
        ("deepcopy", False, "commit"),
        ("deepcopy", True, "rollback"),
        ("merge", True, "commit"),
        ("merge", False, "rollback"),
    ],
)
async def test_flushed_at_once(rig: Rig, by: str, after: bool, end: str) -> None:
    """The first flush waits in the store while the second one completes."""
    if rig.database.name == "sqlite" and by == "merge":
        pytest.skip("a transaction that has read keeps others from writing")
    template = await prepared(rig)
    stop = Stop()
    ended: list[BaseException | None] = []

    async def sign_up(number: int, end: str) -> None:
        async with rig.sessions() as session:
            await BY[by](rig, session, template, number)
            if number == 1:
                rig.store.at("put", stop, 1, after=after)
            await session.flush()
            await getattr(session, end)()

    first = asyncio.create_task(sign_up(1, "commit"))
    await stop.reached.wait()
    for task in (asyncio.create_task(sign_up(2, end)), first):
        await asyncio.wait([task])
        ended.append(task.exception())
        stop.go.set()
    assert all(error is None or isinstance(error, ImageAttachError) for error in ended), ended
    committed = sum(error is None for error in ended) - (ended[0] is None and end == "rollback")
    await rig.check(*([b"new"] if committed else []))
    assert len(await rig.store.names()) == committed


async def test_many_at_once(rig: Rig) -> None:
    """Each of five flushes gets its own file, in any order."""
    template = await prepared(rig)
    meeting = asyncio.Event()

    async def sign_up(number: int) -> None:
        async with rig.sessions() as session, session.begin():
            user = copy.deepcopy(template)
            user.id = number
            session.add(user)
            await meeting.wait()

    tasks = [asyncio.create_task(sign_up(number)) for number in range(1, 6)]
    await asyncio.sleep(0)
    meeting.set()
    errors = [error for error in await asyncio.gather(*tasks, return_exceptions=True) if error is not None]
    if rig.database.name != "sqlite":  # which may be locked
        assert all(isinstance(error, ImageAttachError) for error in errors), errors
    await rig.check(*([b"new"] if len(errors) < 5 else []))
    assert len(await rig.store.names()) == 5 - len(errors)
