"""Checks a rendered chart, read from standard input: what RBAC grants and how pods are confined.

Prints every violation and ends with 1 when there is one. Knows the chart's promises, not its text.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

Manifest = Mapping[str, Any]
PRIVILEGED = {"virt-handler"}
SECRETS = {"podvisor-ca"}
# What is made in anybody's namespace and is no machine's: for whom, a policy says.
POLICED = {"secrets", "services", "persistentvolumeclaims"}
# What is anybody's as well and may be changed: in which way, a policy says.
POLICED_CHANGES = {"pods", "nodes"}


def rbac_problems(manifest: Manifest) -> Iterator[str]:
    """No wildcard anywhere; Secrets by name, in the install namespace; pods are never entered."""
    for rule in manifest.get("rules") or ():
        for part in ("apiGroups", "resources", "verbs"):
            if "*" in rule.get(part, ()):
                yield f"wildcard in {part}"
        resources, verbs = set(rule["resources"]), set(rule["verbs"])
        if "secrets" in resources and verbs - {"create"}:
            if manifest["kind"] == "ClusterRole":
                yield "Secrets of every namespace"
            if set(rule.get("resourceNames", ())) != SECRETS:
                yield "Secrets that are not named"
        if "persistentvolumeclaims" in resources and "update" in verbs:
            yield "claims are replaced whole, which nobody does"
        if resources & {"pods/exec", "pods/attach", "nodes/proxy", "serviceaccounts/token"}:
            yield f"a way around every other rule: {sorted(resources)}"


def pod_problems(name: str, pod: Manifest) -> Iterator[str]:
    """Restricted unless listed as privileged; read-only root, probes and requests everywhere."""
    privileged = name in PRIVILEGED
    if not privileged:
        context = pod.get("securityContext", {})
        if not context.get("runAsNonRoot"):
            yield "may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield "no seccomp profile"
        if pod.get("hostPID") or pod.get("hostNetwork") or pod.get("hostIPC"):
            yield "shares namespaces of the host"
        if any("hostPath" in volume for volume in pod.get("volumes", ())):
            yield "mounts a path of the host"
    for container in pod["containers"]:
        context = container.get("securityContext", {})
        if not context.get("readOnlyRootFilesystem"):
            yield f"{container['name']}: writable root"
        if not container.get("resources", {}).get("requests"):
            yield f"{container['name']}: requests nothing"
        if not privileged and (
            context.get("privileged")
            or context.get("allowPrivilegeEscalation") is not False
            or context.get("capabilities", {}).get("drop") != ["ALL"]
        ):
            yield f"{container['name']}: has privileges"


def workload_problems(manifest: Manifest) -> Iterator[str]:
    """Confined pods, of system priority and probed; a Deployment that is replaced without a gap."""
    template = manifest["spec"]["template"]
    yield from pod_problems(manifest["metadata"]["name"], template["spec"])
    if manifest["kind"] == "Job":
        return
    rollout = manifest["spec"].get("strategy", {}).get("rollingUpdate", {})
    if manifest["kind"] == "Deployment" and rollout.get("maxUnavailable") != 0:
        yield "webhook calls are lost in a rollout"
    if not template["spec"].get("priorityClassName", "").startswith("system-"):
        yield "no system priority"
    for container in template["spec"]["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{container['name']}: no {probe}"


def problems(manifest: Manifest) -> Iterator[str]:
    """Every way in which one rendered object breaks the chart's promises."""
    kind = manifest["kind"]
    if kind in {"Role", "ClusterRole"}:
        yield from rbac_problems(manifest)
    if kind in {"Deployment", "DaemonSet", "Job"}:
        yield from workload_problems(manifest)
    if kind in {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}:
        yield "the controller makes these, with its certificate"


def policy_problems(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Whoever may make what is POLICED everywhere, or change POLICED_CHANGES, is held to its own by a policy that denies."""
    denying = {
        one["spec"]["policyName"]
        for one in manifests
        if one["kind"] == "ValidatingAdmissionPolicyBinding"
        and one["spec"]["validationActions"] == ["Deny"]
    }
    policed = {
        (operation, resource)
        for one in manifests
        if one["kind"] == "ValidatingAdmissionPolicy" and one["metadata"]["name"] in denying
        for rule in one["spec"]["matchConstraints"]["resourceRules"]
        for operation in rule["operations"]
        for resource in rule["resources"]
    }
    for one in manifests:
        for rule in one.get("rules") or () if one["kind"] == "ClusterRole" else ():
            verbs, resources = {*rule["verbs"]}, {*rule["resources"]}
            makes = {("CREATE", r) for r in POLICED & resources} if "create" in verbs else set()
            changed = POLICED_CHANGES & resources if verbs & {"patch", "update"} else set()
            for operation, resource in sorted((makes | {("UPDATE", r) for r in changed}) - policed):
                name = one["metadata"]["name"]
                yield f"ClusterRole {name}: {operation} of any {resource}, by no policy"


def main() -> int:
    """The program; returns the exit code."""
    manifests = [manifest for manifest in yaml.safe_load_all(sys.stdin) if manifest]
    found = [
        f"{manifest['kind']} {manifest['metadata']['name']}: {problem}"
        for manifest in manifests
        for problem in problems(manifest)
    ]
    found += policy_problems(manifests)
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
