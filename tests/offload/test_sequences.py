"""Random sequences of operations: after each commit and rollback, rows and files match those of a dict."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.offload import load_stored
from tests.faults.stores import FaultyStore
from tests.offload.conftest import Sessions
from tests.offload.models import Article

State = dict[int, dict[str, str | None]]
OPERATIONS = ["add", "set", "set", "copy", "delete", "expire", "flush", "savepoint", "release", "back", "commit", "end"]
KEYS = ("body", "note")
VALUES = [None, "", "short", "a text that is too long for the row", "another text that is too long for the row"]


class Player:
    """Applies the same operations to a session and to a dict.

    Args:
        session: A session that stays open.
        dice: Chooses the operations.
    """

    def __init__(self, session: AsyncSession, dice: random.Random) -> None:
        self.session = session
        self.dice = dice
        self.rows: dict[int, Any] = {}
        self.state: State = {}
        self.committed: State = {}
        self.savepoints: list[tuple[Any, State]] = []

    async def row(self) -> tuple[int, Any] | None:
        """Return one of the rows, in any state."""
        if not self.state:
            return None
        number = self.dice.choice(sorted(self.state))
        if number not in self.rows:
            self.rows[number] = await self.session.get_one(Article, number)
        return number, self.rows[number]

    async def step(self) -> bool:
        """Apply an operation; return whether it ended a transaction."""
        operation = self.dice.choice(OPERATIONS)
        chosen = await self.row()
        key = self.dice.choice(KEYS)
        match operation:
            case "add":
                number = self.dice.randrange(1, 6)
                if number not in self.state:
                    self.state[number] = {key: self.dice.choice(VALUES) for key in KEYS}
                    self.rows[number] = Article(id=number, **self.state[number])
                    self.session.add(self.rows[number])
            case "set" if chosen:
                self.state[chosen[0]][key] = value = self.dice.choice(VALUES)
                setattr(chosen[1], key, value)
            case "copy" if chosen:
                number, source = await self.row() or chosen
                if not all(name in source.__dict__ for name in KEYS):
                    await self.session.flush()  # pending changes would be discarded
                    await self.session.refresh(source)
                setattr(chosen[1], key, source.body)
                self.state[chosen[0]][key] = self.state[number]["body"]
            case "delete" if chosen:
                await self.session.flush()
                await self.session.delete(chosen[1])
                del self.state[chosen[0]], self.rows[chosen[0]]
            case "expire" if chosen:
                await self.session.flush()
                self.session.expire(chosen[1])
            case "flush":
                await self.session.flush()
            case "savepoint" if len(self.savepoints) < 3:
                self.savepoints.append((await self.session.begin_nested(), deepcopy(self.state)))
            case "release" if self.savepoints:
                await self.savepoints.pop()[0].commit()
            case "back" if self.savepoints:
                savepoint, self.state = self.savepoints.pop()
                await savepoint.rollback()
                self.rows.clear()
            case "commit" if not self.savepoints:
                await self.session.commit()
                self.committed = deepcopy(self.state)
                return True
            case "end":
                await self.session.rollback()
                self.savepoints.clear()
                self.rows.clear()
                self.state = deepcopy(self.committed)
                return True
        return False


async def compare(sessions: Sessions, store: FaultyStore, expected: State) -> None:
    async with sessions() as session:
        rows = list(await session.scalars(select(Article)))
        await load_stored(rows, Article.body, Article.note)
    assert {row.id: {"body": row.body and row.body.value, "note": row.note and row.note.value} for row in rows} == {
        number: {**values} for number, values in expected.items()
    }
    named = [handle.name for row in rows for handle in (row.body, row.note) if handle is not None and handle.name]
    assert sorted(named) == sorted(await store.names())


@pytest.mark.parametrize("seed", range(24))
async def test_any_sequence(sessions: Sessions, store: FaultyStore, seed: int) -> None:
    """Every file has a row, and every row has its file."""
    async with sessions() as session:
        player = Player(session, random.Random(seed))
        ended = 0
        while ended < 12:
            if await player.step():
                ended += 1
                await compare(sessions, store, player.committed)
