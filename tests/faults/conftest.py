"""Faults are injected into machines that several tests share, as long as they live; a failed case leaves artefacts behind.

Random moments come from a seed that is printed and can be given again as PODVISOR_FAULTS_SEED.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.faults.artefacts import ARTEFACTS, collect, directory_of, forget_old
from tests.faults.guest import booted, counting_vm
from tests.faults.history import History, recording
from tests.faults.measured import Durations, Measured
from tests.support.cluster import Cluster, create_namespace
from tests.support.machine import Machine

_RUN = f"{os.getpid() % 4096:03x}"
_SEED = int(os.environ.get("PODVISOR_FAULTS_SEED", random.SystemRandom().randrange(10**6)))
_failed = pytest.StashKey[bool]()
_durations = Durations()


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("one_machine") is None:
            item.add_marker(pytest.mark.alone)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # what a test beside has collected stays
        forget_old()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _durations.take(report.user_properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _durations.durations_s:
        terminalreporter.section("measured")
        terminalreporter.line(f"seed {_SEED}")
        for line in _durations.table():
            terminalreporter.line(line)
        _durations.save(ARTEFACTS / "measured.json")


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Durations of this test."""
    return Measured(record_property)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Randomness that the printed seed and the test's name repeat."""
    print(f"PODVISOR_FAULTS_SEED={_SEED}")
    return random.Random(f"{_SEED} {request.node.name}")


@pytest.fixture(scope="session")
def shared_namespace() -> Iterator[Cluster]:
    """The run's namespace. That it goes away whatever was done in it is part of what is tested."""
    cluster = asyncio.run(create_namespace(f"f{_RUN}-faults"))
    yield cluster

    async def remove() -> None:
        await cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")
        await Cluster("default").until(
            "namespace",
            cluster.namespace,
            lambda state: state is None,
            within_s=90,
            what="the namespace is deleted",
        )

    asyncio.run(remove())


@pytest.fixture
async def cluster(
    shared_namespace: Cluster, request: pytest.FixtureRequest
) -> AsyncIterator[Cluster]:
    """The run's namespace, looked at closely when the test has failed."""
    yield shared_namespace
    if request.node.stash.get(_failed, False):
        directory = directory_of(request.node.name)
        await collect(shared_namespace, directory)
        print(f"artefacts: {directory}")


@pytest.fixture
async def history(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[History]:
    """What is seen of the namespace from before the test's first step to its end."""
    async with recording(cluster) as recorded:
        yield recorded
    if request.node.stash.get(_failed, False):
        (directory_of(request.node.name) / "history.txt").write_text(str(recorded))


_survivors: list[str] = []


@pytest.fixture
async def survivor(cluster: Cluster) -> Machine:
    """A running VM with a counting guest that no test ends: the one of the test before, or, if that one is not as it should be,
    a new one."""
    if _survivors:
        state = await cluster.get("vmi", _survivors[-1]) or {}
        ready = [
            c["status"]
            for c in state.get("status", {}).get("conditions", [])
            if c["type"] == "Ready"
        ]
        if ready == ["True"]:
            return Machine(cluster, _survivors[-1])
        await cluster.kubectl("delete", "vm", _survivors[-1], "--wait=false", check=False)
    _survivors.append(f"tough-{len(_survivors)}")
    return await booted(cluster, counting_vm(_survivors[-1]))
