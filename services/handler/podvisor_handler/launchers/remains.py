"""What is left on the node of a pod whose object is gone.

Invariant: only looks. The kubelet removes a pod's directory after its last container has ended, but
its word is not taken: nothing is left only when no process is in a control group of the pod either.
"""

import os
from pathlib import Path

from podvisor_handler.linux.process import cgroup_names_pod


def has_directory(pods_directory: str, pod_uid: str) -> bool:
    """Whether the kubelet still keeps the pod's directory."""
    return os.path.lexists(os.path.join(pods_directory, pod_uid))


def has_process(pod_uid: str) -> bool:
    """Whether a process of the node is in a control group of the pod. Reads all of /proc: it blocks."""
    return any(
        cgroup_names_pod(_control_groups(pid), pod_uid)
        for pid in os.listdir("/proc")
        if pid.isdigit()
    )


def _control_groups(pid: str) -> str:
    try:
        return Path("/proc", pid, "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
