"""The upgrade hook's program: the chart's own files, applied without touching the conversion entry."""

from pathlib import Path

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import CRDS, ObjectKey
from podvisor_controller.webhooks.crds import apply_definitions, load_definitions

from tests.unit.kube.fake_apiserver import FakeApiServer

CRDS_DIRECTORY = Path(__file__).parents[3] / "charts" / "podvisor" / "crds"


async def test_definitions_are_applied_but_conversion_is_left_alone() -> None:
    key = ObjectKey("", "virtualmachines.kubevirt.io")
    conversion = {"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": "Q0E="}}}
    async with (
        FakeApiServer() as server,
        KubeClient.for_url(server.url, user_agent="test") as client,
    ):
        server.put(CRDS, {"metadata": {"name": key.name}, "spec": {"conversion": conversion}})
        definitions = load_definitions(CRDS_DIRECTORY)
        await apply_definitions(client, definitions)
        assert {definition["metadata"]["name"] for definition in server.list(CRDS)} == {
            "virtualmachines.kubevirt.io",
            "virtualmachineinstances.kubevirt.io",
            "virtualmachineinstancereplicasets.kubevirt.io",
            "virtualmachinepools.pool.kubevirt.io",
            "virtualmachinesnapshots.snapshot.kubevirt.io",
            "virtualmachinesnapshotcontents.snapshot.kubevirt.io",
            "virtualmachinerestores.snapshot.kubevirt.io",
            "virtualmachineexports.export.kubevirt.io",
            "virtualmachineclones.clone.kubevirt.io",
            "kubevirts.kubevirt.io",
        }
        found = server.get(CRDS, key)
        assert found is not None
        assert found["spec"]["conversion"] == conversion
        assert {version["name"] for version in found["spec"]["versions"]} == {
            "v1",
            "v1alpha3",
            "v1alpha1",
        }


def test_other_objects_and_empty_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no definitions"):
        load_definitions(tmp_path)
    (tmp_path / "pod.yaml").write_text("kind: Pod\nspec: {}\n")
    with pytest.raises(ValueError, match="Pod"):
        load_definitions(tmp_path)
