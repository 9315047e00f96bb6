"""Settings: from the KubeVirt object, from the environment, from a node's state."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_controller import config
from podvisor_controller.installation import without
from podvisor_controller.installation_status import status_of
from podvisor_controller.node.health import NodeHealth, health_of
from podvisor_controller.settings import Settings, SettingsError
from podvisor_controller.webhooks.rotation import Lives

from tests.unit.controller.builders import Json, handlers_body, situations

ENVIRONMENT = {
    "POD_NAME": "virt-controller-1",
    "POD_NAMESPACE": "kubevirt",
    "LAUNCHER_IMAGE": "l:1",
    "EXPORTER_IMAGE": "c:1",
}


def kubevirt(configuration: Json) -> v1.KubeVirt:
    body = {
        "metadata": {"name": "kubevirt", "generation": 4},
        "spec": {"configuration": configuration},
    }
    return msgspec.convert(body, v1.KubeVirt)


def handlers(**status: int) -> core.DaemonSet:
    return msgspec.convert(handlers_body(**status), core.DaemonSet)


def config_of(obj: Any) -> config.ClusterConfig:
    return config.of(obj, launcher_image="l:1", architecture="amd64", image_volumes=None)


@pytest.mark.parametrize(
    ("configuration", "field", "value"),
    situations(
        ("emulation", {"developerConfiguration": {"useEmulation": True}}, "use_emulation", True),
        ("no emulation", {}, "use_emulation", False),
        (
            "cpu ratio",
            {"developerConfiguration": {"cpuAllocationRatio": 4}},
            "cpu_allocation_ratio",
            4,
        ),
        (
            "less space",
            {"developerConfiguration": {"pvcTolerateLessSpaceUpToPercent": 0}},
            "pvc_shortfall_percent",
            0,
        ),
        (
            "less space than none",
            {"developerConfiguration": {"pvcTolerateLessSpaceUpToPercent": 101}},
            "pvc_shortfall_percent",
            10,
        ),
        (
            "a reserve",
            {"developerConfiguration": {"minimumReservePVCBytes": 4096}},
            "pvc_reserve_bytes",
            4096,
        ),
        (
            "a reserve that makes no sense",
            {"developerConfiguration": {"minimumReservePVCBytes": -1}},
            "pvc_reserve_bytes",
            131072,
        ),
        (
            "disks of nodes",
            {"developerConfiguration": {"featureGates": ["Snapshot", "HostDisk"]}},
            "host_disks",
            True,
        ),
        ("no disks of nodes", {}, "host_disks", False),
        (
            "disks of nodes, and none",
            {
                "developerConfiguration": {
                    "featureGates": ["HostDisk"],
                    "disabledFeatureGates": ["HostDisk"],
                }
            },
            "host_disks",
            False,
        ),
        (
            "cpu ratio that makes no sense",
            {"developerConfiguration": {"cpuAllocationRatio": 0}},
            "cpu_allocation_ratio",
            10,
        ),
        (
            "memory overhead ratio",
            {"additionalGuestMemoryOverheadRatio": "1.25"},
            "memory_overhead_ratio",
            Decimal("1.25"),
        ),
        (
            "memory overhead ratio that is none",
            {"additionalGuestMemoryOverheadRatio": "much"},
            "memory_overhead_ratio",
            Decimal(1),
        ),
        (
            "tables of all guests",
            {"smbios": {"manufacturer": "Acme"}},
            "smbios",
            v1.SMBios(manufacturer="Acme"),
        ),
        ("balloons that never tell", {"memBalloonStatsPeriod": 0}, "balloon_period_s", 0),
        ("less than never", {"memBalloonStatsPeriod": -1}, "balloon_period_s", None),
        ("cpu request", {"cpuRequest": "200m"}, "cpu_request", "200m"),
        (
            "memory overcommit",
            {"developerConfiguration": {"memoryOvercommit": 150}},
            "memory_overcommit_percent",
            150,
        ),
        ("eviction strategy", {"evictionStrategy": "External"}, "eviction_strategy", "External"),
        ("no eviction strategy", {}, "eviction_strategy", "None"),
        (
            "eviction strategy that is not served",
            {"evictionStrategy": "LiveMigrate"},
            "eviction_strategy",
            "None",
        ),
        (
            "controllers that log more",
            {"developerConfiguration": {"logVerbosity": {"virtController": 4}}},
            "debug_controller",
            True,
        ),
        (
            "launchers that log a little more",
            {"developerConfiguration": {"logVerbosity": {"virtLauncher": 3}}},
            "debug_launcher",
            False,
        ),
        (
            "launchers that log more",
            {"developerConfiguration": {"logVerbosity": {"virtLauncher": 5}}},
            "debug_launcher",
            True,
        ),
        (
            "gates that nobody knows",
            {"developerConfiguration": {"featureGates": ["X"], "disabledFeatureGates": ["Y"]}},
            "use_emulation",
            False,
        ),
        (
            "console log off",
            {"virtualMachineOptions": {"disableSerialConsoleLog": {}}},
            "log_serial_console",
            False,
        ),
    ),
)
def test_cluster_config(configuration: Json, field: str, value: Any) -> None:
    assert getattr(config_of(kubevirt(configuration)), field) == value


@pytest.mark.parametrize(
    ("developer", "gates"),
    situations(
        ("none named", {}, set()),
        ("some on", {"featureGates": ["HostDisk", "X"]}, {"HostDisk", "X"}),
        (
            "on and off",
            {"featureGates": ["HostDisk", "X"], "disabledFeatureGates": ["HostDisk"]},
            {"X"},
        ),
    ),
)
def test_feature_gates(developer: Json, gates: set[str]) -> None:
    settings = kubevirt({"developerConfiguration": developer}).configuration
    assert config.feature_gates_of(settings) == gates


def test_before_the_object_exists_the_defaults_hold() -> None:
    assert config_of(None) == config.ClusterConfig(launcher_image="l:1")


def test_settings_from_the_environment() -> None:
    settings = Settings.from_environment(ENVIRONMENT | {"LOG_LEVEL": "debug", "WEBHOOK_PORT": "0"})
    assert settings.subresource_port == 8444
    assert settings.identity_port == 8445
    assert (settings.pod_name, settings.log_level, settings.webhook_port) == (
        "virt-controller-1",
        "debug",
        0,
    )
    assert settings.observability_port == 8080
    assert settings.certificate_lives == Lives(timedelta(days=90), timedelta(hours=24))


def test_lives_of_certificates_from_the_environment() -> None:
    lives = {"AUTHORITY_LIFE_S": "600", "CERTIFICATE_LIFE_S": "20"}
    settings = Settings.from_environment(ENVIRONMENT | lives)
    assert settings.certificate_lives == Lives(timedelta(minutes=10), timedelta(seconds=20))


@pytest.mark.parametrize(
    ("change", "named"),
    situations(
        ("no image", {"LAUNCHER_IMAGE": ""}, "LAUNCHER_IMAGE"),
        ("no name", {"POD_NAME": ""}, "POD_NAME"),
        ("a port that is none", {"OBSERVABILITY_PORT": "http"}, "OBSERVABILITY_PORT"),
        ("a life too short", {"CERTIFICATE_LIFE_S": "19"}, "CERTIFICATE_LIFE_S"),
        ("a life that is none", {"AUTHORITY_LIFE_S": "2m"}, "AUTHORITY_LIFE_S"),
    ),
)
def test_an_unusable_environment_is_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_environment(ENVIRONMENT | change)


def node(ready: str = "True", taint: str = "") -> core.Node:
    taints = [{"key": taint, "effect": "NoExecute"}] if taint else []
    body = {
        "metadata": {"name": "n1"},
        "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }
    return msgspec.convert(body, core.Node)


@pytest.mark.parametrize(
    ("obj", "health"),
    situations(
        ("well", node(), NodeHealth.WELL),
        ("its kubelet says that it is not ready", node("False"), NodeHealth.WELL),
        ("silent", node("Unknown"), NodeHealth.UNRESPONSIVE),
        ("unreachable", node("Unknown", "node.kubernetes.io/unreachable"), NodeHealth.UNRESPONSIVE),
        ("fenced", node("Unknown", "node.kubernetes.io/out-of-service"), NodeHealth.FENCED),
        ("deleted", None, NodeHealth.FENCED),
        (
            "out of service by its taint, and answers",
            node("True", "node.kubernetes.io/out-of-service"),
            NodeHealth.WELL,
        ),
    ),
)
def test_node_health(obj: Any, health: NodeHealth) -> None:
    assert health_of(obj) is health


@pytest.mark.parametrize(
    ("obj", "health"),
    situations(
        ("the node is well", node(), NodeHealth.UNATTENDED),
        ("the node is silent as well", node("Unknown"), NodeHealth.UNRESPONSIVE),
        ("fenced", node("Unknown", "node.kubernetes.io/out-of-service"), NodeHealth.FENCED),
        ("deleted", None, NodeHealth.FENCED),
    ),
)
def test_node_health_while_its_handler_is_silent(obj: Any, health: NodeHealth) -> None:
    assert health_of(obj, attended=False) is health


def test_an_installation_that_lacks_nothing_says_so() -> None:
    status = status_of(
        kubevirt({}),
        version="1.2",
        architecture="amd64",
        handlers=handlers(),
        now="2026-01-01T00:00:00Z",
    )
    conditions = {c.type: c.status for c in status.conditions or ()}
    assert conditions == {
        "Available": "True",
        "Created": "True",
        "Progressing": "False",
        "Degraded": "False",
    }
    assert (status.phase, status.observed_generation) == ("Deployed", 4)


NONE_READY = handlers(numberAvailable=0)
THREE_NODES = {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3}


@pytest.mark.parametrize(
    ("daemon_set", "said", "message"),
    situations(
        ("all ready", handlers(), ("True", "False", "False"), "All components are ready."),
        ("missing", None, ("False", "False", "True"), "There is no DaemonSet virt-handler"),
        ("not one ready", NONE_READY, ("False", "False", "True"), "ready on 0 of 1 nodes"),
        (
            "no node for it",
            handlers(desiredNumberScheduled=0, updatedNumberScheduled=0, numberAvailable=0),
            ("False", "False", "False"),
            "No node is selected",
        ),
        (
            "one of three ready",
            handlers(**THREE_NODES),
            ("True", "False", "True"),
            "virt-handler is ready on 1 of 3 nodes.",
        ),
        (
            "rolling out",
            handlers(**THREE_NODES | {"updatedNumberScheduled": 2, "numberAvailable": 3}),
            ("True", "True", "False"),
            "virt-handler is up to date on 2 of 3 nodes.",
        ),
        (
            "about to roll out",
            handlers(observedGeneration=1),
            ("True", "True", "False"),
            "virt-handler is up to date on 0 of 1 nodes.",
        ),
    ),
)
def test_the_handlers_show_in_the_conditions(
    daemon_set: core.DaemonSet | None, said: tuple[str, str, str], message: str
) -> None:
    status = status_of(
        kubevirt({}),
        version="1.2",
        architecture="amd64",
        handlers=daemon_set,
        now="2026-01-01T00:00:00Z",
    )
    conditions = {c.type: c for c in status.conditions or ()}
    shown = [conditions[name] for name in ("Available", "Progressing", "Degraded")]
    assert tuple(condition.status for condition in shown) == said
    assert any(message in condition.message for condition in shown)
    assert status.phase == ("Deployed" if said[0] == "True" else "Deploying")


def test_what_was_deployed_once_stays_deployed() -> None:
    before = kubevirt({})
    before = msgspec.structs.replace(before, status=v1.KubeVirtStatus(phase="Deployed"))
    status = status_of(before, version="1", architecture="amd64", handlers=NONE_READY, now="x")
    assert status.phase == "Deployed"


def test_what_a_person_has_set_is_left_out() -> None:
    configuration = {"cpuModel": "host", "network": {"x": 1}}
    spec = {"configuration": configuration, "imagePullPolicy": "Always"}
    fields = [".spec.configuration.cpuModel", ".spec.other.thing", ".spec.imagePullPolicy"]
    assert without(spec, fields) == {"configuration": {"network": {"x": 1}}}
    assert configuration["cpuModel"] == "host"
