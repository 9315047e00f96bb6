"""kubernetes_asyncio's models stay out of our processes."""

import json
import subprocess
import sys

_PROBE = """
import json, sys
def rss_kib():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
import aiohttp, msgspec, structlog, prometheus_client
before = rss_kib()
import podvisor_common.kube.client
import podvisor_common.kube.informer, podvisor_common.kube.leader, podvisor_common.kube.events
ours = sorted(m for m in sys.modules if m.startswith("kubernetes_asyncio"))
print(json.dumps({"modules": ours, "grown_kib": rss_kib() - before}))
"""


def test_no_model_is_imported_and_little_memory_is_used() -> None:
    output = subprocess.run(
        [sys.executable, "-c", _PROBE], check=True, capture_output=True, text=True
    ).stdout
    found = json.loads(output)
    assert not [name for name in found["modules"] if ".models" in name or ".api" in name]
    assert len(found["modules"]) < 20
    assert found["grown_kib"] < 12 * 1024


def test_a_pod_does_not_read_kubeconfig_files() -> None:
    """What only they need (YAML, plugins that give credentials) is not loaded with the client."""
    probe = "import sys, podvisor_common.kube.client; print('yaml' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True)
    assert output.stdout.strip() == b"False"
