"""The settings of the cluster, changed while it runs: the next machine has them, and what is not served is refused by name."""

import json
from typing import Any

import pytest

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.machine import Machine, vm, vmi
from tests.support.settings import INSTALLATION, Configure

pytestmark = pytest.mark.alone

NOWHERE = {"podvisor.test/nowhere": "true"}
GUEST_BYTES = 64 << 20


async def restarts() -> dict[str, int]:
    """Every container of podvisor's own pods, and how often it was started anew."""
    return {
        f"{pod['metadata']['uid']}/{container['name']}": container["restartCount"]
        for pod in await INSTALLATION.all("pods")
        for container in pod["status"].get("containerStatuses", [])
    }


def bare(name: str) -> Json:
    """An instance that leaves to the cluster what it can, and starts no guest."""
    manifest = vmi(name, nodeSelector=NOWHERE)
    manifest["spec"]["domain"] |= {"memory": {"guest": str(GUEST_BYTES)}, "resources": {}}
    return manifest


def backed_bytes(pod: Json) -> int:
    """What the pod requests for the guest's own memory."""
    requests = pod["spec"]["containers"][0]["resources"]["requests"]
    overhead = pod["metadata"]["annotations"]["kubevirt.io/memory-overhead-bytes"]
    return int(requests["memory"]) - int(overhead)


async def test_the_next_instance_has_them(cluster: Cluster, configure: Configure) -> None:
    """Board, CPU model and request, overcommit, eviction strategy and console logs; nothing is restarted for it."""
    before = await restarts()
    await cluster.apply(bare("early"))
    early = await Machine(cluster, "early").unplaced_pod()
    assert backed_bytes(early) == GUEST_BYTES
    await configure(
        {
            "machineType": "pc-q35-7.2",
            "cpuModel": "Nehalem",
            "cpuRequest": "130m",
            "evictionStrategy": "LiveMigrateIfPossible",
            "virtualMachineOptions": {"disableSerialConsoleLog": {}},
            "developerConfiguration": {
                "memoryOvercommit": 200,
                "featureGates": ["NobodyKnowsThisOne", "LiveMigration"],
                "disabledFeatureGates": ["NorThis"],
                "logVerbosity": {"virtLauncher": 5},
            },
        }
    )
    await cluster.apply(bare("late"))
    late = await Machine(cluster, "late").unplaced_pod()
    spec = ((await cluster.get("vmi", "late")) or {})["spec"]
    assert spec["domain"]["machine"]["type"] == "pc-q35-7.2"
    assert spec["domain"]["cpu"]["model"] == "Nehalem"
    assert spec["evictionStrategy"] == "LiveMigrateIfPossible"
    [container] = late["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "130m"
    assert backed_bytes(late) == GUEST_BYTES // 2
    assert {"name": "LOG_LEVEL", "value": "DEBUG"} in container["env"]
    # A machine gets its board when it is made, whether or not it ever runs.
    await cluster.apply(vm("kept", run_strategy="Halted"))
    kept = ((await cluster.get("vm", "kept")) or {})["spec"]["template"]["spec"]
    assert kept["domain"]["machine"]["type"] == "pc-q35-7.2"
    assert await restarts() == before


async def test_the_board_of_an_architecture_comes_first(
    cluster: Cluster, configure: Configure
) -> None:
    """architectureConfiguration is upstream's newer name for the default board."""
    board = {"machineType": "pc-q35-7.1"}
    await configure(
        {
            "machineType": "pc-q35-7.2",
            "architectureConfiguration": {"amd64": board, "arm64": {"machineType": "virt-7.1"}},
        }
    )
    await cluster.apply(vm("typed", run_strategy="Halted"))
    spec = ((await cluster.get("vm", "typed")) or {})["spec"]["template"]["spec"]
    expected = {"amd64": "pc-q35-7.1", "arm64": "virt-7.1"}
    assert spec["domain"]["machine"]["type"] == expected[spec["architecture"]]


async def test_the_strategy_of_evictions_counts_for_running_guests(
    cluster: Cluster, configure: Configure
) -> None:
    """A guest that says nothing itself is protected as soon as the cluster says External."""
    await cluster.apply(vmi("plain"))
    machine = Machine(cluster, "plain")
    await machine.running()
    assert (await machine.evict(dry_run=True)).exit_code == 0
    await configure({"evictionStrategy": "External"})
    refused = await machine.evict(dry_run=True)
    assert "Eviction triggered evacuation of VMI" in refused.stderr
    await configure({"evictionStrategy": "None"})
    assert (await machine.evict(dry_run=True)).exit_code == 0


async def test_a_machine_of_a_cluster_that_names_no_binding_is_bridged(
    cluster: Cluster, configure: Configure
) -> None:
    """As upstream: the guest of the oldest manifest has the pod's own address. tests/e2e/test_introduction.py has it behind the
    masquerade that the chart names."""
    await configure({"network": {"defaultNetworkInterface": None}})
    await cluster.apply(ROOT / "examples/myvm.yaml")
    machine = Machine(cluster, "myvm")
    await machine.console_shows(r"myvm login:")
    shown = (await machine.ssh("ip -4 -o addr show dev eth0")).stdout
    assert f" {(await machine.pod())['status']['podIP']}/" in shown
    state = await machine.running()
    [interface] = state["spec"]["domain"]["devices"]["interfaces"]
    assert "bridge" in interface


REFUSED: list[tuple[Any, str]] = [
    ({"migrations": {"completionTimeoutPerGiB": 1}}, "spec.configuration.migrations: Forbidden"),
    ({"vmRolloutStrategy": "LiveUpdate"}, "vmRolloutStrategy is not supported yet"),
    (
        {"developerConfiguration": {"logVerbosity": {"virtAPI": 5}}},
        "spec.configuration.developerConfiguration.logVerbosity.virtAPI: Forbidden",
    ),
    ({"evictionStrategy": "LiveMigrate"}, "spec.configuration.evictionStrategy: Unsupported value"),
    (
        {"network": {"defaultNetworkInterface": "slirp"}},
        "spec.configuration.network.defaultNetworkInterface: Unsupported value",
    ),
]


@pytest.mark.parametrize(
    ("configuration", "expected"),
    REFUSED,
    ids=[row[1].split(":")[0].split()[0].rpartition(".")[2] for row in REFUSED],
)
async def test_settings_that_are_not_served_are_refused(configuration: Json, expected: str) -> None:
    """The API server names the setting; nothing of the patch is taken over."""
    patch = json.dumps({"spec": {"configuration": configuration}})
    refused = await INSTALLATION.kubectl(
        "patch",
        "kubevirt",
        "kubevirt",
        "--type=merge",
        "--dry-run=server",
        "-p",
        patch,
        check=False,
    )
    assert refused.exit_code != 0, refused.stdout
    assert expected in refused.stderr


async def test_settings_that_ask_for_nothing_are_taken() -> None:
    """What generators write out is no request."""
    nothing: Json = {
        "ovmfPath": "",
        "emulatedMachines": [],
        "network": {"permitSlirpInterface": False},
    }
    patch = json.dumps({"spec": {"configuration": nothing}})
    await INSTALLATION.kubectl(
        "patch", "kubevirt", "kubevirt", "--type=merge", "--dry-run=server", "-p", patch
    )
