"""Pools, their machines and instances for the controller's tests, with what a test does not care about filled in."""

import copy
from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.v1 import names
from podvisor_controller.pool import machine
from podvisor_controller.pool.observed import Observed
from podvisor_controller.sets.claims import claim

from tests.unit.controller.builders import NOW, Json, spec_body, stamp

POOL_UID = "33333333-3333-3333-3333-333333333333"
LABELS = {"pool": "web"}


def template_body(memory: str = "64M", **spec: Any) -> Json:
    """What machines are made from; another memory makes another guest, another run strategy the same one."""
    domain = spec_body()["domain"] | {"resources": {"requests": {"memory": memory}}}
    return {
        "metadata": {"labels": LABELS},
        "spec": {
            "runStrategy": "Always",
            "template": {"metadata": {"labels": {"app": "demo"}}, "spec": spec_body(domain=domain)},
        }
        | spec,
    }


def pool_body(replicas: int = 3, **changes: Any) -> Json:
    """A pool as JSON; `metadata` and `status` are merged over the defaults, everything else over the specification."""
    metadata, status = changes.pop("metadata", {}), changes.pop("status", {})
    return {
        "apiVersion": names.POOL_API_VERSION,
        "kind": names.POOL,
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": POOL_UID,
            "generation": 1,
            "resourceVersion": "3",
        }
        | metadata,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "virtualMachineTemplate": template_body(),
        }
        | changes,
        "status": status,
    }


def pool(replicas: int = 3, **changes: Any) -> VirtualMachinePool:
    return msgspec.convert(pool_body(replicas, **changes), VirtualMachinePool)


def machine_of(
    owner: VirtualMachinePool, index: int, *, age_s: float = 60, **changes: Any
) -> v1.VirtualMachine:
    """A machine as that pool made it; `metadata` and `status` are merged over it."""
    body = copy.deepcopy(machine.manifest_of(owner, index))
    body["metadata"] |= {
        "uid": f"vm-{index}",
        "resourceVersion": str(10 + index),
        "creationTimestamp": stamp(age_s),
    } | changes.get("metadata", {})
    return msgspec.convert(body | {"status": changes.get("status", {})}, v1.VirtualMachine)


def guest_of(
    vm: v1.VirtualMachine, *, ready: bool = True, phase: str = "Running", **metadata: Any
) -> v1.VirtualMachineInstance:
    """The instance that a machine has made of itself as it is."""
    template = vm.spec.template
    body = {
        "metadata": {
            "name": vm.metadata.name,
            "namespace": vm.metadata.namespace,
            "uid": f"vmi-of-{vm.metadata.uid}",
            "labels": (template.metadata.labels if template.metadata else None) or {},
            "ownerReferences": [
                {"kind": "VirtualMachine", "uid": vm.metadata.uid, "controller": True}
            ],
        }
        | metadata,
        "spec": msgspec.to_builtins(template.spec),
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    return msgspec.convert(body, v1.VirtualMachineInstance)


def pool_observed(
    owner: VirtualMachinePool,
    machines: list[v1.VirtualMachine],
    guests: list[v1.VirtualMachineInstance] | None = None,
    *,
    strangers: frozenset[str] = frozenset(),
    **changes: Any,
) -> Observed:
    """The pool with its machines, each with a guest that is ready unless `guests` says which there are."""
    if guests is None:
        guests = [guest_of(vm) for vm in machines]
    taken = strangers | {vm.metadata.name for vm in machines}
    return Observed(
        pool=owner,
        claims=claim(machines, POOL_UID, owner.spec.selector),
        instances={vmi.metadata.name: vmi for vmi in guests},
        is_taken=taken.__contains__,
        **({"at": NOW} | changes),
    )
