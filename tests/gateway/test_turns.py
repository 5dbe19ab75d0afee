"""Fair turns: so many in a turn of the loop, in the order of asking, and nobody is forgotten."""

from __future__ import annotations

import asyncio

from jarvis_mesh.gateway.turns import Turns


async def heard_by_turn(turns: Turns, clients: int, messages: int) -> list[list[int]]:
    """Return whose messages are heard in which turn of the loop."""
    heard: list[list[int]] = [[]]
    loop = asyncio.get_running_loop()
    running = True

    def next_turn() -> None:
        heard.append([])
        if running:
            loop.call_soon(next_turn)

    async def talk(client: int) -> None:
        for _ in range(messages):
            await turns.take()
            heard[-1].append(client)

    loop.call_soon(next_turn)
    async with asyncio.TaskGroup() as tasks:
        for client in range(clients):
            tasks.create_task(talk(client))
    running = False
    return heard


async def test_a_turn_has_only_so_many_however_many_talk() -> None:
    heard = await heard_by_turn(Turns(5), clients=20, messages=10)
    assert sum(map(len, heard)) == 200
    assert max(map(len, heard)) <= 2 * 5  # the loop's turns and its counting may overlap


async def test_everybody_has_a_turn_before_anybody_has_another() -> None:
    order = [client for turn in await heard_by_turn(Turns(5), 20, 10) for client in turn]
    for start in range(20, 180, 20):
        assert len(set(order[start : start + 20])) >= 18


async def test_who_gives_up_takes_nobodys_turn() -> None:
    turns = Turns(1)
    await turns.take()
    async with asyncio.TaskGroup() as tasks:
        given_up = tasks.create_task(turns.take())
        waiting = tasks.create_task(turns.take())
        tasks.create_task(turns.take())
        asyncio.get_running_loop().call_soon(given_up.cancel)
    assert waiting.done()
