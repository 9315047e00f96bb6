"""Who judges which webhook: joins the review of a request to defaults, validation and conversion.

Pure but for the settings it is handed as a function. Must not decide anything itself.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks import registration
from podvisor_controller.webhooks.conversion import convert
from podvisor_controller.webhooks.defaults import (
    ClusterDefaults,
    default_instance_update,
    default_plugged_disks,
    default_virtual_machine,
    default_virtual_machine_instance,
)
from podvisor_controller.webhooks.nesting import MOST_LEVELS, cut, decode_bounded, deep_place
from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.review import AdmissionRequest, Refused, Verdict
from podvisor_controller.webhooks.server import Judge, Reviewer, Webhooks
from podvisor_controller.webhooks.validation import (
    Cause,
    validate_virtual_machine,
    validate_virtual_machine_instance,
    validate_virtual_machine_instance_update,
    warnings_of,
)
from podvisor_controller.webhooks.validation_clones import validate_clone
from podvisor_controller.webhooks.validation_exports import validate_export
from podvisor_controller.webhooks.validation_fields import invalid
from podvisor_controller.webhooks.validation_paths import causes_as_written, warnings_as_written
from podvisor_controller.webhooks.validation_pools import validate_virtual_machine_pool
from podvisor_controller.webhooks.validation_restores import validate_restore
from podvisor_controller.webhooks.validation_sets import validate_replica_set
from podvisor_controller.webhooks.validation_snapshots import validate_snapshot

Json = dict[str, Any]

CREATE = "CREATE"
_CONTROLLER = "virt-controller"
_SERVICE_ACCOUNTS = (_CONTROLLER, "virt-handler")


class _Validation(Protocol):
    def __call__(self, obj: Json, old: Json | None, *, permitted: Permitted) -> list[Cause]:
        """Why an object is refused, given what an update replaces and what the cluster permits."""


def webhooks_for(
    namespace: str, defaults: Callable[[], ClusterDefaults], review_eviction: Reviewer
) -> Webhooks:
    """Everything that is served. `defaults` gives the cluster's settings of the moment."""
    ours = {f"system:serviceaccount:{namespace}:{name}" for name in _SERVICE_ACCOUNTS}

    def is_privileged(request: AdmissionRequest) -> bool:
        return request.user_info.username in ours

    def may_plug(request: AdmissionRequest) -> bool:
        return request.user_info.username == f"system:serviceaccount:{namespace}:{_CONTROLLER}"

    def mutate_machine(request: AdmissionRequest) -> Verdict:
        obj = _object(request)
        if request.operation == CREATE:
            return Verdict(patch=default_virtual_machine(obj, defaults()))
        return Verdict(patch=_kept_finalizer(obj, _old_object(request)))

    def mutate_instance(request: AdmissionRequest) -> Verdict:
        obj = _object(request)
        if request.operation == CREATE:
            return Verdict(patch=default_virtual_machine_instance(obj, defaults()))
        old = _old_object(request)
        if may_plug(request):
            is_same = obj.get("spec") == old.get("spec")
            return Verdict(patch=[] if is_same else default_plugged_disks(obj))
        return Verdict(patch=default_instance_update(obj, old, defaults()))

    def validate_instance(request: AdmissionRequest) -> Verdict:
        obj = _object(request)
        privileged = is_privileged(request)
        permitted = defaults().permitted
        causes = validate_virtual_machine_instance(obj, privileged=privileged, permitted=permitted)
        return _verdict(request, obj, causes)

    def validate_instance_update(request: AdmissionRequest) -> Verdict:
        obj, old = _object(request), _old_object(request)
        causes = validate_virtual_machine_instance_update(
            obj,
            old,
            privileged=is_privileged(request),
            may_plug=may_plug(request),
            permitted=defaults().permitted,
        )
        return Verdict(causes=causes_as_written(causes, request.client_api_version, obj))

    judges = {
        registration.VM_MUTATE: mutate_machine,
        registration.VMI_MUTATE: mutate_instance,
        registration.VM_VALIDATE: _on_each_write(validate_virtual_machine, defaults),
        registration.VMI_VALIDATE_CREATE: validate_instance,
        registration.VMI_VALIDATE_UPDATE: validate_instance_update,
        registration.REPLICA_SET_VALIDATE: _on_each_write(validate_replica_set, defaults),
        registration.POOL_VALIDATE: _on_each_write(validate_virtual_machine_pool, defaults),
        registration.SNAPSHOT_VALIDATE: _on_each_write(validate_snapshot, defaults),
        registration.EXPORT_VALIDATE: _on_each_write(validate_export, defaults),
        registration.RESTORE_VALIDATE: _on_each_write(validate_restore, defaults),
        registration.CLONE_VALIDATE: _on_each_write(validate_clone, defaults),
    }
    return Webhooks(judges, convert, {registration.POD_EVICTION: review_eviction})


def _on_each_write(causes_of: _Validation, defaults: Callable[[], ClusterDefaults]) -> Judge:
    """The judge of creations and updates that finds these causes, given the object and what an update replaces."""

    def judge(request: AdmissionRequest) -> Verdict:
        obj = _object(request)
        old = None if request.operation == CREATE else _old_object(request)
        causes = causes_of(obj, old, permitted=defaults().permitted)
        return _verdict(request, obj, causes)

    return judge


def _verdict(request: AdmissionRequest, obj: Json, causes: list[Cause]) -> Verdict:
    version = request.client_api_version
    return Verdict(
        causes=causes_as_written(causes, version, obj),
        warnings=warnings_as_written(warnings_of(obj), version, obj),
    )


def _kept_finalizer(obj: Json, old: Json) -> list[Json]:
    """A client that replaces a machine with its own manifest does not take our finalizer away."""
    had, has = _finalizers(old), _finalizers(obj)
    if names.VM_FINALIZER not in had or names.VM_FINALIZER in has:
        return []
    return [{"op": "add", "path": "/metadata/finalizers", "value": [*has, names.VM_FINALIZER]}]


def _finalizers(obj: Mapping[str, Any]) -> list[str]:
    return list(obj["metadata"].get("finalizers") or ())


def _object(request: AdmissionRequest) -> Json:
    obj = _decoded(request.object, "object")
    place = deep_place(obj)
    if place is not None:
        text = f"holds values nested deeper than {MOST_LEVELS} levels."
        rest = msgspec.json.decode(cut(bytes(request.object)))
        causes = causes_as_written([invalid(place, text)], request.client_api_version, rest)
        raise Refused(f"{place} {text}", causes)
    return obj


def _old_object(request: AdmissionRequest) -> Json:
    return _decoded(request.old_object, "oldObject")


def _decoded(raw: msgspec.Raw, name: str) -> Json:
    obj = decode_bounded(msgspec.json.decode, bytes(raw))
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        raise Refused(f"the review's {name} is no object")
    return obj
