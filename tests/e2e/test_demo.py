"""`make demo` on a cluster that the person names: asked first, then the machine's console, then commands that work as printed.

The cluster named here is the development cluster, as a stranger's: by a kubeconfig and the tools on the PATH alone. `.ci/run`
runs the other form.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.support.cluster import ROOT, Cluster
from tests.support.process import end, run

EXITS_AFTER_PROMPT_S = 10.0

pytestmark = [pytest.mark.alone, pytest.mark.timeout(170)]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person saw of a demo, and when each line came, in seconds of the monotonic clock."""

    exit_code: int
    lines: list[tuple[float, str]]
    ended_s: float

    @property
    def text(self) -> str:
        return "".join(line for _, line in self.lines)

    def at_s(self, text: str) -> float:
        return next(at_s for at_s, line in self.lines if text in line)


def stranger(**more: str) -> Mapping[str, str]:
    """The environment of somebody whose current context is the development cluster."""
    tools = str(ROOT / ".dev/bin")
    return os.environ | {
        "KUBECONFIG": str(ROOT / ".dev/kubeconfig"),
        "PATH": f"{tools}:{os.environ['PATH']}",
        **more,
    }


async def demo(answer: str, environment: Mapping[str, str]) -> Shown:
    """Run the demo and answer its question."""
    process = await asyncio.create_subprocess_exec(
        "make", "demo", "CLUSTER=current", cwd=ROOT, env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(150):
            process.stdin.write(answer.encode())
            process.stdin.close()
            lines = [
                (time.monotonic(), line.decode(errors="replace")) async for line in process.stdout
            ]
            code = await process.wait()
    finally:
        await end(process)
    return Shown(code, lines, time.monotonic())


async def releases() -> str:
    """The Secrets in which helm keeps every revision."""
    return (
        await Cluster("kubevirt").kubectl("get", "secrets", "-l", "owner=helm", "-o", "name")
    ).stdout


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
async def test_nothing_is_done_without_a_yes(answer: str) -> None:
    before = await releases()
    shown = await demo(answer, stranger(HELM_ARGS="--set logLevel=debug"))
    assert shown.exit_code != 0
    assert "cluster of context 'podvisor-dev'" in shown.text
    assert "nothing was changed" in shown.text
    assert await releases() == before


async def test_the_cluster_that_was_named() -> None:
    """Installed by helm with the person's arguments, booted, and every printed command does what it says."""
    before = await releases()
    shown = await demo("y\n", stranger(HELM_ARGS="--set logLevel=info"))
    assert shown.exit_code == 0, shown.text
    assert await releases() != before
    assert shown.ended_s - shown.at_s("myvm login:") < EXITS_AFTER_PROMPT_S
    steps = [line.strip() for _, line in shown.lines if line.startswith("  kubectl ")]
    ssh = next(line.strip() for _, line in shown.lines if line.startswith("  ssh "))
    assert len(steps) == 4
    assert "helm uninstall podvisor" in shown.text
    for step in (*steps[:3], f"{ssh} hostname", steps[3]):
        done = await run("env", "-C", str(ROOT), *environment_of(stranger()), "sh", "-c", step)
        assert "myvm" in done.stdout, step


def environment_of(environment: Mapping[str, str]) -> list[str]:
    """The settings as arguments of env(1)."""
    return [f"{name}={environment[name]}" for name in ("KUBECONFIG", "PATH")]


async def test_an_image_that_the_cluster_does_not_have_is_named() -> None:
    """Nobody waits for minutes to read that something is not ready."""
    helm = [
        str(ROOT / ".dev/bin/helm"),
        "--kubeconfig",
        str(ROOT / ".dev/kubeconfig"),
        "-n",
        "kubevirt",
    ]
    try:
        shown = await demo("y\n", stranger(HELM_ARGS="--set image.tags.handler=absent"))
    finally:
        await run(*helm, "rollback", "podvisor", "--wait", "--timeout", "60s", timeout_s=70)
    assert shown.exit_code != 0
    assert "virt-handler:absent" in shown.text
    assert "HELM_ARGS" in shown.text
