"""What is left on the node of a pod, or of one of its containers.

Invariant: only looks. The kubelet removes a pod's directory after its last container has ended, but
its word is not taken: nothing is left only when no process is in a control group of the pod either.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from podvisor_handler.linux.process import cgroup_is_within, cgroup_names_pod


def has_directory(pods_directory: str, pod_uid: str) -> bool:
    """Whether the kubelet still keeps the pod's directory."""
    return os.path.lexists(os.path.join(pods_directory, pod_uid))


def has_process(pod_uid: str) -> bool:
    """Whether a process of the node is in a control group of the pod. Reads all of /proc: it blocks."""
    return any(cgroup_names_pod(text, pod_uid) for text in _control_groups())


def has_process_within(group: str) -> bool:
    """Whether a process of the node is in the control group, or below it. Reads all of /proc: it blocks."""
    return any(cgroup_is_within(text, group) for text in _control_groups())


def _control_groups() -> Iterator[str]:
    """The control groups of each process of the node."""
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield Path("/proc", pid, "cgroup").read_text()
