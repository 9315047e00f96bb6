"""Looks through the pods of a namespace for one that has claims of an export: the caches have podvisor's own pods alone.

Invariant: of a pod that is read nothing is kept, and little is decoded; between pages, which are short, the event loop goes on.
"""

from collections.abc import Iterable

import msgspec
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiExpired
from podvisor_common.kube.resources import PODS

from podvisor_controller.export.users import UserPod, pod_in_the_way

PAGE_SIZE = 100

_NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


class _ListMeta(msgspec.Struct):
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[UserPod] | None = None


_decode_page = msgspec.json.Decoder(_Page).decode


async def find_pod_in_the_way(
    client: KubeClient, claims: Iterable[str], export: VirtualMachineExport
) -> str:
    """What users.pod_in_the_way says of the pods of the export's namespace. Raises ApiError."""
    wanted = set(claims)
    try:
        return await _find(client, wanted, export, PAGE_SIZE)
    except ApiExpired:
        return await _find(client, wanted, export, 0)


async def _find(
    client: KubeClient, claims: set[str], export: VirtualMachineExport, page_size: int
) -> str:
    continue_ = ""
    while True:
        answer = await client.list_page(
            PODS,
            namespace=export.metadata.namespace,
            field_selector=_NOT_ENDED,
            limit=page_size,
            continue_=continue_,
        )
        page = _decode_page(answer)
        continue_ = page.metadata.continue_
        if (told := pod_in_the_way(page.items or (), claims, export)) or not continue_:
            return told
