"""Commands run from tests, with a deadline, as a person would run them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str


class CommandFailedError(AssertionError):
    """A command that had to succeed did not. The text holds its output."""


async def run(
    *command: str, stdin: str | None = None, timeout_s: float = 60, check: bool = True
) -> Completed:
    """Run `command` to its end. Raises CommandFailedError when `check` and it fails, TimeoutError after `timeout_s`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except BaseException:
        await end(process)
        raise
    done = Completed(
        process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
    )
    if check and done.exit_code != 0:
        raise CommandFailedError(
            f"{_shown(command)}: exit {done.exit_code}\n{done.stdout}{done.stderr}"
        )
    return done


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process that still runs and wait until it is gone."""
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            return
        await process.wait()


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)[:300]
