"""By what restores, and the machines that one has locked, can be looked up. Pure."""

from podvisor_common.api import meta, v1
from podvisor_common.api.snapshot import VirtualMachineRestore
from podvisor_common.api.snapshot.names import ConditionType
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.restore.machine import mark_of
from podvisor_controller.vmi.claims import claim_key

TARGET_INDEX = "target"
RESTORED_SNAPSHOT_INDEX = "snapshot"
MARK_INDEX = "mark"
RESTORE_LOCK_INDEX = "restore-in-progress"
OVERLAID_INDEX = "overlaid-claims"


def by_target(restore: VirtualMachineRestore) -> list[str]:
    """The index of restores that are not over by the machine that they are for."""
    return [] if _is_over(restore) else [_key(restore, restore.spec.target.name)]


def by_restored_snapshot(restore: VirtualMachineRestore) -> list[str]:
    """The index of restores that are not over by their snapshot."""
    if _is_over(restore):
        return []
    return [_key(restore, restore.spec.virtual_machine_snapshot_name)]


def by_mark(restore: VirtualMachineRestore) -> list[str]:
    """The index of restores by what the machines say that they have made."""
    return [mark_of(restore)]


def by_restore_lock(vm: v1.VirtualMachine) -> list[str]:
    """The index of machines by the restore that has locked them."""
    name = vm.status.restore_in_progress
    return [str(ObjectKey(vm.metadata.namespace, name))] if name else []


def by_overlaid_claim(vm: v1.VirtualMachine) -> list[str]:
    """The index of machines by the claims that their guests have a copy over, which ends with them."""
    volumes = vm.spec.template.spec.volumes or ()
    names = [volume.claim_name for volume in volumes if volume.ephemeral is not None]
    return [claim_key(vm.metadata.namespace, name) for name in names if name]


def _is_over(restore: VirtualMachineRestore) -> bool:
    failure = meta.find_condition(restore.status.conditions, ConditionType.FAILURE)
    return restore.status.complete is True or (failure is not None and failure.is_true)


def _key(restore: VirtualMachineRestore, name: str) -> str:
    return str(ObjectKey(restore.metadata.namespace, name))
