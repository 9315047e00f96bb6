"""The ControllerRevisions of starts, in the API server: made before an instance, removed after the next, read when asked.

Invariant: nothing is watched or cached here, for a revision is needed only at a start and after an edit of a running machine.
What cannot be read is not known, which stops nobody.
"""

from dataclasses import dataclass

import msgspec
import structlog
from podvisor_common.api import v1
from podvisor_common.api.base import ApiStruct
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists, ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.resources import CONTROLLER_REVISIONS, ObjectKey

from podvisor_controller.vm.revision import (
    Revision,
    RevisionOutline,
    manifest_of,
    name_of,
)

_log = structlog.get_logger(__name__)


class _RevisionList(ApiStruct, frozen=True):
    """A list answer."""

    items: list[RevisionOutline]


_decode = msgspec.json.Decoder(Revision).decode
_decode_list = msgspec.json.Decoder(_RevisionList).decode


@dataclass(frozen=True, slots=True)
class Revisions:
    """Reads and writes the revisions of machines."""

    client: KubeClient

    async def record(self, vm: v1.VirtualMachine) -> list[str]:
        """Make the revision of the start that is about to be, unless it exists; the names of the machine's other ones.

        Raises ApiForbidden and ApiInvalid when it may not be made.
        """
        wanted = name_of(vm.metadata.uid, vm.metadata.generation)
        known = await self._of(vm)
        if wanted not in known:
            try:
                await self.client.create(
                    CONTROLLER_REVISIONS, vm.metadata.namespace, manifest_of(vm)
                )
            except ApiAlreadyExists:
                _log.debug("revision was there already")
        return [name for name in known if name != wanted]

    async def remove(self, namespace: str, revisions: list[str]) -> None:
        """Remove revisions that no instance refers to any more."""
        for name in revisions:
            try:
                await self.client.delete(CONTROLLER_REVISIONS, ObjectKey(namespace, name))
            except ApiNotFound:
                _log.debug("revision was gone already")

    async def template(
        self, namespace: str, name: str
    ) -> v1.VirtualMachineInstanceTemplateSpec | None:
        """The template in a revision; None when it cannot be known."""
        try:
            answer = await self.client.get(CONTROLLER_REVISIONS, ObjectKey(namespace, name))
            spec = _decode(answer).data.spec
        except (ApiNotFound, ApiForbidden, msgspec.ValidationError) as error:
            _log.warning("revision cannot be read", revision=name, kind=type(error).__name__)
            return None
        return spec.template if spec is not None else None

    async def adopt(self, vm: v1.VirtualMachine, name: str) -> None:
        """Have the revision of an adopted instance go with its new machine."""
        body = manifest_of(vm)["metadata"]
        patch = {"metadata": {key: body[key] for key in ("labels", "ownerReferences")}}
        try:
            key = ObjectKey(vm.metadata.namespace, name)
            await self.client.merge_patch(CONTROLLER_REVISIONS, key, patch)
        except (ApiNotFound, ApiForbidden, ApiInvalid) as error:
            _log.warning("revision cannot be adopted", revision=name, kind=type(error).__name__)

    async def _of(self, vm: v1.VirtualMachine) -> list[str]:
        """The machine's revisions. One that was never started has none."""
        if vm.status.observed_generation is None:
            return []
        answer = await self.client.list_page(
            CONTROLLER_REVISIONS,
            namespace=vm.metadata.namespace,
            label_selector=f"{names.VM_UID_LABEL}={vm.metadata.uid}",
            limit=0,
            # From the API server's memory: one that is missing there is found to exist when it is made.
            resource_version="0",
        )
        return [item.metadata.name for item in _decode_list(answer).items]
