"""What a launcher imports of the shared code stays within the base distribution."""

import subprocess
import sys

BASE = (
    "podvisor_common.rpc.server",
    "podvisor_common.rpc.client",
    "podvisor_common.rpc.errors",
    "podvisor_common.obs.logging",
)
EXTRA = {"aiohttp", "msgspec", "cryptography", "prometheus_client", "kubernetes_asyncio", "yaml"}


def test_rpc_and_logging_need_no_extra() -> None:
    code = f"import sys, {', '.join(BASE)}; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert not EXTRA & set(loaded.stdout.split())
