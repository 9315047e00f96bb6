"""The container's first process, with a script in place of the handler."""

import asyncio
import signal
from pathlib import Path

KEEPER = Path(__file__).parents[3] / "services/handler/image/keeper"
DEADLINE_S = 10


async def _keep(tmp_path: Path, handler: str) -> asyncio.subprocess.Process:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $1 $2 >>{tmp_path}/starts\n{handler}\n")
    program.chmod(0o755)
    return await asyncio.create_subprocess_exec(
        KEEPER,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def _starts(tmp_path: Path) -> list[str]:
    return (tmp_path / "starts").read_text().splitlines()


async def test_a_handler_that_is_killed_is_started_again(tmp_path: Path) -> None:
    handler = f"[ $(wc -l <{tmp_path}/starts) -ge 4 ] && exit 3\nkill -KILL $$"
    keeper = await _keep(tmp_path, handler)
    async with asyncio.timeout(DEADLINE_S):
        _, said = await keeper.communicate()
    assert keeper.returncode == 3
    assert _starts(tmp_path) == ["-m podvisor_handler"] * 4
    assert said.count(b'"signal": 9') == 3


async def test_a_handler_that_ends_by_itself_is_left_to_the_kubelet(tmp_path: Path) -> None:
    keeper = await _keep(tmp_path, "exit 1")
    async with asyncio.timeout(DEADLINE_S):
        assert await keeper.wait() == 1
    assert len(_starts(tmp_path)) == 1


async def test_the_order_to_end_is_passed_on_and_its_answer_awaited(tmp_path: Path) -> None:
    handler = "trap 'sleep 0.2; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    keeper = await _keep(tmp_path, handler)
    async with asyncio.timeout(DEADLINE_S):
        assert keeper.stdout is not None
        assert await keeper.stdout.readline() == b"up\n"
        keeper.send_signal(signal.SIGTERM)
        assert await keeper.wait() == 0
    assert len(_starts(tmp_path)) == 1


async def test_a_handler_that_dies_of_the_order_to_end_is_not_started_again(tmp_path: Path) -> None:
    keeper = await _keep(tmp_path, "echo up; exec sleep 60")
    async with asyncio.timeout(DEADLINE_S):
        assert keeper.stdout is not None
        assert await keeper.stdout.readline() == b"up\n"
        keeper.send_signal(signal.SIGTERM)
        assert await keeper.wait() == 128 + signal.SIGTERM
    assert len(_starts(tmp_path)) == 1
