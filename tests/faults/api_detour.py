"""What lies between podvisor's pods and the API server: a proxy that misbehaves, without their knowing, for it has the API server's
address and certificate; or a network that has lost their connections.

Invariant: nobody else is concerned: users, the kubelet and the rest of the cluster ask the API server itself.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.api_proxy import ApiProxy, api_proxy
from tests.faults.replicas import CONTROLLER_PODS, HANDLER_PODS, INSTALL, all_are_ready
from tests.support.cluster import Cluster, on_node
from tests.support.machine import pod_processes

_TABLE = "podvisor_detour"
_LOST_TABLE = "podvisor_lost"
# Of each process, until its caches are followed through the proxy.
_TAKEN_WITHIN_S = 30.0


@asynccontextmanager
async def behind_a_proxy(directory: Path) -> AsyncIterator[ApiProxy]:
    """For the body all that controllers and handlers say to the API server goes through the proxy. The node has to reach us."""
    host = (await on_node("sh", "-c", "ip -4 route show default | cut -d' ' -f3")).stdout.strip()
    async with api_proxy(host=host, tls=await _certificate(directory)) as proxy:
        address = await _address_of_api_server()
        pids = await _pids_of_podvisor()
        rule = f"ip daddr {address} tcp dport 443 dnat to {host}:{proxy.port}"
        table = (
            f"table ip {_TABLE} {{ chain out {{ type nat hook output priority -100; {rule}; }}; }}"
        )
        try:
            for pid in pids:
                await _within(pid, "nft", table)
                await _within(pid, "ss", "-tK", "dst", address)
            await _followed(proxy)
            yield proxy
        finally:
            for pid in pids:
                await _within(pid, "nft", f"delete table ip {_TABLE}", check=False)
                await _within(pid, "ss", "-tK", "dst", address, check=False)
            await all_are_ready()


@asynccontextmanager
async def lost_connections() -> AsyncIterator[None]:
    """The connections that podvisor has to the API server lead nowhere for the body, and nobody is told. New ones can be made."""
    address = await _address_of_api_server()
    pids = await _pids_of_podvisor()
    try:
        for pid in pids:
            listed = await _connections(pid, address)
            ports = ", ".join(line.split()[3].rsplit(":", 1)[1] for line in listed.splitlines())
            chains = [
                f"chain {hook} {{ type filter hook {hook} priority 0; ip {side} {address} tcp {port} {{ {ports} }} drop; }};"
                for hook, side, port in (("output", "daddr", "sport"), ("input", "saddr", "dport"))
            ]
            await _within(pid, "nft", f"table ip {_LOST_TABLE} {{ {' '.join(chains)} }}")
        yield
    finally:
        for pid in pids:
            await _within(pid, "nft", f"delete table ip {_LOST_TABLE}", check=False)


async def _connections(pid: int, address: str) -> str:
    """A process's connections to the API server, of which there may be none for as long as a pause between two attempts."""
    look = f"ss -tnH dst {address}"
    wait = f'until found=$({look}) && [ -n "$found" ]; do sleep 0.2; done; echo "$found"'
    return await _within(pid, "timeout", str(_TAKEN_WITHIN_S - 5), "sh", "-c", wait)


async def _followed(proxy: ApiProxy) -> None:
    """Wait until everybody watches through the proxy."""
    wanted = {"virt-controller", "virt-handler"}
    async with asyncio.timeout(_TAKEN_WITHIN_S):
        await proxy.until(
            lambda: wanted <= {call.agent.split("/")[0] for call in proxy.calls if call.is_watch}
        )


async def _certificate(directory: Path) -> ssl.SSLContext:
    """The API server's own."""
    files = {}
    for suffix in ("crt", "key"):
        files[suffix] = directory / f"apiserver.{suffix}"
        files[suffix].touch(mode=0o600)
        files[suffix].write_text((await on_node("cat", f"/pki/apiserver.{suffix}")).stdout)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files["crt"], files["key"])
    return context


async def _address_of_api_server() -> str:
    service = await Cluster("default").get("service", "kubernetes")
    assert service is not None
    address: str = service["spec"]["clusterIP"]
    return address


async def _pids_of_podvisor() -> list[int]:
    """A process in each pod of the controllers and handlers."""
    pods = [
        pod
        for selector in (CONTROLLER_PODS, HANDLER_PODS)
        for pod in await INSTALL.all("pods", labels=selector)
    ]
    return [min(await pod_processes(pod["metadata"]["uid"])) for pod in pods]


async def _within(pid: int, *command: str, check: bool = True) -> str:
    return (await on_node("nsenter", "-t", str(pid), "-n", *command, check=check)).stdout
