"""Settings that are changed while controllers run: the next instance has them, and nothing is started anew for it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from podvisor_common.kube.resources import KUBEVIRTS
from podvisor_controller.controllers import Controllers
from podvisor_controller.webhooks.defaults import ClusterDefaults

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import situations
from tests.unit.controller.conftest import KUBEVIRT
from tests.unit.controller.scripted_cluster import Cluster, known


@pytest.fixture
def configure(server: ApiServer, leading: Controllers) -> Callable[[Json], None]:
    """Writes the settings, as a person does."""

    def write(configuration: Json) -> None:
        found = server.get(KUBEVIRTS, KUBEVIRT)
        assert found is not None
        emulated: Json = {"developerConfiguration": {"useEmulation": True}}
        server.put(KUBEVIRTS, {**found, "spec": {"configuration": emulated | configuration}})

    return write


@pytest.mark.parametrize(
    ("configuration", "field", "value"),
    situations(
        ("machine type", {"machineType": "pc-q35-9.2"}, "machine_type", "pc-q35-9.2"),
        (
            "machine type of an architecture",
            {"architectureConfiguration": {"amd64": {"machineType": "pc-q35-9.2"}}},
            "machine_types",
            {"amd64": "pc-q35-9.2"},
        ),
        ("CPU model", {"cpuModel": "Nehalem"}, "cpu_model", "Nehalem"),
        ("CPU request", {"cpuRequest": "300m"}, "cpu_request", "300m"),
        ("eviction strategy", {"evictionStrategy": "External"}, "eviction_strategy", "External"),
        (
            "feature gates",
            {"developerConfiguration": {"featureGates": ["HostDisk"]}},
            "feature_gates",
            frozenset({"HostDisk"}),
        ),
    ),
)
async def test_the_next_admission_fills_them_in(
    leading: Controllers,
    configure: Callable[[Json], None],
    configuration: Json,
    field: str,
    value: Any,
) -> None:
    def filled_in() -> Any:
        return getattr(leading.admission_defaults(), field)

    untouched = getattr(ClusterDefaults(), field)
    assert filled_in() == untouched
    configure(configuration)
    await known(leading.caches.kubevirts, lambda: filled_in() == value)
    configure({})
    await known(leading.caches.kubevirts, lambda: filled_in() == untouched)


async def test_the_next_pod_is_made_with_them(
    leading: Controllers, cluster: Cluster, configure: Callable[[Json], None]
) -> None:
    configure(
        {
            "developerConfiguration": {
                "useEmulation": True,
                "cpuAllocationRatio": 4,
                "logVerbosity": {"virtLauncher": 6},
            },
            "virtualMachineOptions": {"disableSerialConsoleLog": {}},
        }
    )
    await known(leading.caches.kubevirts, lambda: leading.config().debug_launcher)
    cluster.apply_vmi()
    [container] = (await cluster.pod())["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "250m"
    assert container["env"] == [{"name": "LOG_LEVEL", "value": "DEBUG"}]


@pytest.fixture
def root_level() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.mark.usefixtures("root_level")
async def test_controllers_log_more_while_they_are_told_to(
    leading: Controllers, configure: Callable[[Json], None]
) -> None:
    root = logging.getLogger()
    configure({"developerConfiguration": {"logVerbosity": {"virtController": 4}}})
    await known(leading.caches.kubevirts, lambda: root.level == logging.DEBUG)
    configure({})
    await known(leading.caches.kubevirts, lambda: root.level == logging.INFO)
