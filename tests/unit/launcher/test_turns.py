"""Whose turn it is: first those who are to go first, and nobody's twice."""

import asyncio

import pytest
from podvisor_launcher.virt.turns import Turns


class Line:
    """Those who wait, and in which order they were served."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.served: list[str] = []

    async def stands(self, name: str, *, goes_first: bool = False) -> asyncio.Task[None]:
        async def wait() -> None:
            await self.turns.take(goes_first=goes_first)
            self.served.append(name)

        task = asyncio.create_task(wait(), name=name)
        await asyncio.sleep(0)
        return task


async def test_those_who_go_first_are_served_first() -> None:
    line = Line()
    await line.turns.take(goes_first=False)
    waiting = [
        await line.stands("a"),
        await line.stands("b"),
        await line.stands("c", goes_first=True),
        await line.stands("d", goes_first=True),
    ]
    for _ in waiting:
        line.turns.give_back()
        await asyncio.sleep(0)
    assert line.served == ["c", "d", "a", "b"]
    assert line.turns.is_taken
    line.turns.give_back()
    assert not line.turns.is_taken


@pytest.mark.parametrize("has_come", [False, True])
async def test_the_turn_of_one_who_has_gone_is_the_next_ones(has_come: bool) -> None:
    line = Line()
    await line.turns.take(goes_first=True)
    gone, next_ = await line.stands("gone"), await line.stands("next")
    if has_come:
        line.turns.give_back()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    if not has_come:
        line.turns.give_back()
    await next_
    assert line.served == ["next"]
    line.turns.give_back()
    assert not line.turns.is_taken
