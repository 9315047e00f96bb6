"""`python -m podvisor_controller.handlers`: asks every handler who it is, as a controller does, and prints a line for each.

For people, inside of a controller's container. Ends with 1 when one of them does not answer, with 2 where there is nobody to ask.
"""

import asyncio
import os
import sys

# Set before grpc is loaded: this process never forks without exec, and must not pay for it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import msgspec
from podvisor.handler.v1 import handler_pb2
from podvisor_common.aio.tasks import spawn
from podvisor_common.api.core import Secret
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import SECRETS, ObjectKey
from podvisor_common.obs.logging import configure_logging
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import RpcError

from podvisor_controller.handlers.app import HandlerAccess
from podvisor_controller.settings import Settings
from podvisor_controller.webhooks.certificates import SECRET_NAME
from podvisor_controller.webhooks.rotation import Authorities, from_secret_data

ANSWER_WITHIN_S = 5.0
SYNCED_WITHIN_S = 15.0
AT_ONCE = 16


async def ask_all(client: KubeClient, settings: Settings) -> int:
    """Ask all of them; returns the exit code."""
    namespace = settings.pod_namespace
    try:
        authorities = await _authorities(client, namespace)
    except ApiError as error:
        sys.stderr.write(f"the authority cannot be read: {error}\n")
        return 2
    access = HandlerAccess(
        client,
        namespace,
        lambda: authorities,
        is_node=lambda _: True,
        life=settings.certificate_lives.leaf,
    )
    async with asyncio.TaskGroup() as group:
        running = spawn(group, access.run(), name="handlers")
        try:
            return await _ask_known(access)
        finally:
            running.cancel()


async def _ask_known(access: HandlerAccess) -> int:
    try:
        async with asyncio.timeout(SYNCED_WITHIN_S):
            await access.directory.wait_synced()
    except TimeoutError:
        sys.stderr.write("the API server does not tell where handlers are\n")
        return 2
    room = asyncio.Semaphore(AT_ONCE)

    async def one(node: str) -> bool:
        async with room:
            return await _ask(access, node)

    answers = await asyncio.gather(*(one(node) for node in access.directory.nodes()))
    if not answers:
        sys.stderr.write("there are no handlers\n")
        return 2
    return 0 if all(answers) else 1


async def _ask(access: HandlerAccess, node: str) -> bool:
    try:
        async with access.on(node) as handler:
            info = await call(
                handler.GetNodeInfo, handler_pb2.GetNodeInfoRequest(), timeout_s=ANSWER_WITHIN_S
            )
    except (RpcError, Retryable, Terminal) as error:
        sys.stdout.write(f"{node}: {error}\n")
        return False
    sys.stdout.write(f"{node}: {info.node_name}, virt-handler {info.version}\n")
    return info.node_name == node


async def _authorities(client: KubeClient, namespace: str) -> Authorities | None:
    found = await client.get(SECRETS, ObjectKey(namespace, SECRET_NAME))
    return from_secret_data(msgspec.json.decode(found, type=Secret).data or {})


async def main(settings: Settings) -> int:
    """The program; returns the exit code."""
    async with await KubeClient.from_environment(user_agent="virt-controller-handlers") as client:
        return await ask_all(client, settings)


if __name__ == "__main__":
    configure_logging("virt-controller-handlers", "WARNING")
    sys.exit(asyncio.run(main(Settings.from_environment())))
