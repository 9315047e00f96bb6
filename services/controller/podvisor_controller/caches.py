"""The caches of one replica: what of the cluster it holds, and by what it can be looked up.

Invariant: filled in every replica, whoever leads; nothing here decides or writes.
"""

from collections.abc import Iterator
from typing import Any

from podvisor_common.api import core, v1
from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.export.names import EXPORTER_APP
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
)
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    CLONES,
    CONFIGMAPS,
    DAEMONSETS,
    EXPORTS,
    KUBEVIRTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    POOLS,
    REPLICA_SETS,
    RESTORES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    KubeObject,
)

from podvisor_controller.clone.indexes import (
    CLONE_SOURCE_INDEX,
    CLONE_TARGET_INDEX,
    by_clone_source,
    by_clone_target,
)
from podvisor_controller.export.holders import EXPORTED_INDEX, claims_exported
from podvisor_controller.export.sources import SOURCES_INDEX, by_source_of_export
from podvisor_controller.installation import CONFIG_MAP_NAME
from podvisor_controller.installation_status import HANDLER
from podvisor_controller.restore.indexes import (
    MARK_INDEX,
    OVERLAID_INDEX,
    RESTORE_LOCK_INDEX,
    RESTORED_SNAPSHOT_INDEX,
    TARGET_INDEX,
    by_mark,
    by_overlaid_claim,
    by_restore_lock,
    by_restored_snapshot,
    by_target,
)
from podvisor_controller.sets.claims import CLAIM_INDEX, claimable
from podvisor_controller.snapshot.outline import (
    LOCK_INDEX,
    SNAPSHOT_INDEX,
    SOURCE_INDEX,
    by_lock,
    by_snapshot,
    by_source,
    content_outline,
)
from podvisor_controller.snapshot.volume_snapshots import VolumeSnapshots
from podvisor_controller.snapshot.volumes import MACHINES_INDEX, claims_of
from podvisor_controller.vmi.claim_users import KEEPERS_INDEX, USERS_INDEX
from podvisor_controller.vmi.claims import claims_kept, claims_used
from podvisor_controller.vmi.outline import claim_outline, outline
from podvisor_controller.vmi.pod_index import OWNER_INDEX, owner_keys
from podvisor_controller.vmi.reconciler import NODE_INDEX, node_names

NAMESPACE_INDEX = "namespace"


def namespaces(obj: KubeObject) -> list[str]:
    """An indexer: where the object is."""
    return [obj.metadata.namespace or ""]


_OF_MACHINES = {
    CLAIM_INDEX: claimable(names.POOL),
    LOCK_INDEX: by_lock,
    RESTORE_LOCK_INDEX: by_restore_lock,
    OVERLAID_INDEX: by_overlaid_claim,
    MACHINES_INDEX: claims_of,
}
_OF_INSTANCES = {
    NODE_INDEX: node_names,
    CLAIM_INDEX: claimable(names.REPLICA_SET),
    USERS_INDEX: claims_used,
    KEEPERS_INDEX: claims_kept,
}


_APPS = (names.LAUNCHER_APP, names.HOTPLUG_DISK_APP, EXPORTER_APP)


class Caches:
    """One informer for each kind. Those of the installation itself look into `namespace` alone."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.vms = Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine, indexers=_OF_MACHINES)
        self.vmis = Informer(
            client,
            VIRTUAL_MACHINE_INSTANCES,
            v1.VirtualMachineInstance,
            indexers=_OF_INSTANCES,
        )
        self.replica_sets = Informer(
            client,
            REPLICA_SETS,
            v1.VirtualMachineInstanceReplicaSet,
            indexers={NAMESPACE_INDEX: namespaces},
        )
        self.pools = Informer(
            client, POOLS, VirtualMachinePool, indexers={NAMESPACE_INDEX: namespaces}
        )
        self.snapshots = Informer(
            client, SNAPSHOTS, VirtualMachineSnapshot, indexers={SOURCE_INDEX: by_source}
        )
        self.snapshot_contents = Informer(
            client,
            SNAPSHOT_CONTENTS,
            VirtualMachineSnapshotContent,
            indexers={SNAPSHOT_INDEX: by_snapshot},
            keep=content_outline,
        )
        self.exports = Informer(
            client, EXPORTS, VirtualMachineExport, indexers={SOURCES_INDEX: by_source_of_export}
        )
        self.restores = Informer(
            client,
            RESTORES,
            VirtualMachineRestore,
            indexers={
                TARGET_INDEX: by_target,
                RESTORED_SNAPSHOT_INDEX: by_restored_snapshot,
                MARK_INDEX: by_mark,
            },
        )
        self.clones = Informer(
            client,
            CLONES,
            VirtualMachineClone,
            indexers={CLONE_SOURCE_INDEX: by_clone_source, CLONE_TARGET_INDEX: by_clone_target},
        )
        # Not one of those that must be complete: a cluster may have none of them, and no such kind.
        self.volume_snapshots = VolumeSnapshots(client)
        self.pods = Informer(
            client,
            PODS,
            core.Pod,
            label_selector=f"{names.APP_LABEL} in ({','.join(_APPS)})",
            indexers={OWNER_INDEX: owner_keys, EXPORTED_INDEX: claims_exported},
            keep=outline,
        )
        self.volume_claims = Informer(
            client, PERSISTENT_VOLUME_CLAIMS, core.PersistentVolumeClaim, keep=claim_outline
        )
        self.nodes = Informer(client, NODES, core.Node)
        self.kubevirts = Informer(client, KUBEVIRTS, v1.KubeVirt, namespace=namespace)
        self.config_maps = Informer(
            client,
            CONFIGMAPS,
            core.ConfigMap,
            namespace=namespace,
            field_selector=f"metadata.name={CONFIG_MAP_NAME}",
        )
        self.daemon_sets = Informer(
            client,
            DAEMONSETS,
            core.DaemonSet,
            namespace=namespace,
            field_selector=f"metadata.name={HANDLER}",
        )

    def __iter__(self) -> Iterator[Informer[Any]]:
        """All of them."""
        yield from (
            self.vms,
            self.vmis,
            self.replica_sets,
            self.pools,
            self.snapshots,
            self.snapshot_contents,
            self.exports,
            self.restores,
            self.clones,
            self.pods,
            self.volume_claims,
            self.nodes,
            self.kubevirts,
            self.config_maps,
            self.daemon_sets,
        )
