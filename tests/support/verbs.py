"""Verbs of subresources.kubevirt.io, called through the API server as virtctl does."""

import json

import aiohttp

from tests.support.cluster import API, Cluster, Json
from tests.support.machine import condition
from tests.support.process import Completed

GROUP = "/apis/subresources.kubevirt.io"
_WITHIN = aiohttp.ClientTimeout(total=30)


async def served(cluster: Cluster) -> None:
    """Wait until both versions are: a controller that leads has registered them, and the API server reaches it."""
    for version in ("v1", "v1alpha3"):
        await cluster.until(
            "apiservice",
            f"{version}.subresources.kubevirt.io",
            lambda state: condition(state, "Available").get("status") == "True",
            within_s=60,
            what="Available",
        )


async def call(
    cluster: Cluster,
    target: str,
    verb: str,
    options: Json,
    *args: str,
    version: str = "v1",
) -> Completed:
    """PUT the verb of a machine or an instance, `virtualmachines/NAME`."""
    path = f"{GROUP}/{version}/namespaces/{cluster.namespace}/{target}/{verb}"
    return await cluster.kubectl(
        "replace", "--raw", path, "-f", "-", *args, stdin=json.dumps(options), check=False
    )


async def put(cluster: Cluster, target: str, verb: str) -> tuple[int, str]:
    """PUT a verb without options, and without a process for it: code and text."""
    server, trust = API.connection()
    url = f"{server}{GROUP}/v1/namespaces/{cluster.namespace}/{target}/{verb}"
    async with (
        aiohttp.ClientSession(timeout=_WITHIN) as session,
        session.put(url, ssl=trust, json={}) as answer,
    ):
        return answer.status, await answer.text()
