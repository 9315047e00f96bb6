"""The KubeVirt object says whether machines can run."""

from collections.abc import Callable

from tests.faults.replicas import INSTALL, all_are_ready, handlers_down
from tests.support.cluster import Cluster, Json


def _available(status: str, words: str) -> Callable[[Json | None], bool]:
    def holds(state: Json | None) -> bool:
        return any(
            condition["status"] == status and words in condition["message"]
            for condition in (state or {})["status"]["conditions"]
            if condition["type"] == "Available"
        )

    return holds


async def test_no_handler(cluster: Cluster) -> None:
    """Available while handlers are there, and not while none is, with a sentence that says so."""
    await all_are_ready()

    async def says(status: str, words: str) -> None:
        await INSTALL.until(
            "kubevirt",
            "kubevirt",
            _available(status, words),
            within_s=10,
            what=f"Available={status}",
        )

    await says("True", "All components are ready.")
    async with handlers_down():
        await says("False", "No node is selected for virt-handler")
    await says("True", "All components are ready.")
