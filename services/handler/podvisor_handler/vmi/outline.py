"""What is kept of a pod in the cache. Pure."""

from msgspec.structs import replace
from podvisor_common.api import core
from podvisor_common.api.v1 import names


def outline(pod: core.Pod) -> core.Pod:
    """The pod; a launcher's without what only matters of one that holds a volume, which is a fifth of its memory."""
    if pod.metadata.label(names.APP_LABEL) == names.HOTPLUG_DISK_APP:
        return pod
    spec = core.PodSpec(
        node_name=pod.spec.node_name,
        security_context=_settings(pod.spec.security_context),
        containers=tuple(replace(c, security_context=None) for c in pod.spec.containers or ()),
    )
    return replace(pod, spec=spec)


def _settings(context: core.SecurityContext | None) -> core.SecurityContext | None:
    sysctls = context.sysctls if context is not None else None
    return core.SecurityContext(sysctls=sysctls) if sysctls else None
