"""The development cluster as a person sees it: through kubectl, the API that it reads, and a shell on the node.

Invariant: waiting is watching. Nothing here sleeps; when a wait gives up it shows the object, its events and the logs of everyone
involved.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.api import Api, Json
from tests.support.process import CommandFailedError, Completed, run

ROOT = Path(__file__).resolve().parents[2]
API = Api(ROOT / ".dev/kubeconfig")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace of the development cluster."""

    namespace: str

    async def kubectl(
        self, *args: str, stdin: str | None = None, timeout_s: float = 60, check: bool = True
    ) -> Completed:
        """Run kubectl in this namespace."""
        return await run(
            str(ROOT / "dev/kubectl"), "-n", self.namespace, *args,
            stdin=stdin, timeout_s=timeout_s, check=check,
        )  # fmt: skip

    async def apply(self, manifest: str | Mapping[str, Any] | Path) -> Completed:
        """Apply a manifest given as text, as data or as a file's path."""
        match manifest:
            case Path():
                return await self.kubectl("apply", "-f", str(manifest))
            case str():
                return await self.kubectl("apply", "-f", "-", stdin=manifest)
            case _:
                return await self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    async def refused(self, manifest: Mapping[str, Any] | str) -> str:
        """Apply a manifest that must be refused, and return what the user reads. Fails when it is accepted."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        done = await self.kubectl("apply", "-f", "-", stdin=text, check=False)
        assert done.exit_code != 0, f"accepted: {done.stdout}"
        return done.stderr

    async def get(self, kind: str, name: str) -> Json | None:
        """The object, or None when it does not exist."""
        return await API.get(kind, self.namespace, name)

    async def all(
        self, kind: str, *, labels: str = "", fields: str = "", everywhere: bool = False
    ) -> list[Json]:
        """All objects of a kind in the namespace, or in all of them."""
        namespace = None if everywhere else self.namespace
        items: list[Json] = (await API.list(kind, namespace, labels=labels, fields=fields))["items"]
        return items

    async def until(
        self,
        kind: str,
        name: str,
        holds: Callable[[Json | None], bool],
        *,
        within_s: float,
        what: str,
    ) -> Json | None:
        """Watch one object until `holds`; None stands for its absence. Raises AssertionError with the whole scene otherwise."""
        seen: Json | None = None
        try:
            async with asyncio.timeout(within_s):
                async with self.watching(kind, name) as states:
                    async for seen in states:
                        if holds(seen):
                            return seen
        except TimeoutError:
            pass
        scene = await self.scene(kind, name)
        raise AssertionError(
            f"{kind}/{name}: not within {within_s} s: {what}\n{json.dumps(seen, indent=1)[:6000]}\n{scene}"
        )

    @asynccontextmanager
    async def watching(self, kind: str, name: str) -> AsyncIterator[AsyncIterator[Json | None]]:
        """The states of one object from now on: first as it is (None when it is absent), then after each change."""
        first = await API.list(kind, self.namespace, fields=f"metadata.name={name}")
        async with aclosing(API.states(kind, self.namespace, name, first)) as states:
            yield states

    async def complaints(self) -> list[str]:
        """What was warned of in the namespace; but not that a pod's network took a second attempt, as it may on a busy node."""
        warnings = await self.events(type_="Warning")
        attempts = Counter(_pod_without_network(event) for event in warnings)
        return [
            f"{event['reason']}: {event.get('note', '')}"
            for event in warnings
            if (pod := _pod_without_network(event)) is None or attempts[pod] > 1
        ]

    async def events(self, *, type_: str | None = None) -> list[Json]:
        """The namespace's events, oldest first."""
        found = await self.all("events.events.k8s.io")
        found.sort(key=lambda event: event["metadata"]["creationTimestamp"])
        return [event for event in found if type_ is None or event["type"] == type_]

    async def scene(self, kind: str, name: str) -> str:
        """What a person would look at when `kind/name` is not as it should be."""
        parts = []
        for args in (
            ("describe", kind, name),
            ("get", "vm,vmi,pods", "-o", "wide"),
            ("get", "events.events.k8s.io"),
            ("logs", "-l", "kubevirt.io=virt-launcher", "-c", "compute", "--tail=40"),
            ("-n", "kubevirt", "logs", "ds/virt-handler", "--tail=40"),
            (
                "-n",
                "kubevirt",
                "logs",
                "-l",
                "app.kubernetes.io/component=virt-controller",
                "--tail=40",
            ),
        ):
            done = await self.kubectl(*args, check=False)
            parts.append(f"$ kubectl {' '.join(args)}\n{done.stdout}{done.stderr}")
        return "\n".join(parts)


async def on_node(
    *command: str, node: str = "node1", check: bool = True, timeout_s: float = 30
) -> Completed:
    """Run a command in a node's container."""
    return await run(str(ROOT / "dev/node"), node, *command, check=check, timeout_s=timeout_s)


async def create_namespace(name: str) -> Cluster:
    """A new namespace, usable at once."""
    cluster = Cluster(name)
    await cluster.kubectl("create", "namespace", name)
    await cluster.until(
        "serviceaccount",
        "default",
        lambda account: account is not None,
        within_s=20,
        what="the namespace has its service account",
    )
    return cluster


@asynccontextmanager
async def namespace(name: str) -> AsyncIterator[Cluster]:
    """A namespace that exists for the body, and whose removal has begun afterwards."""
    cluster = await create_namespace(name)
    try:
        yield cluster
    finally:
        await cluster.kubectl("delete", "namespace", name, "--wait=false")


__all__ = [
    "ROOT",
    "Cluster",
    "CommandFailedError",
    "Json",
    "create_namespace",
    "namespace",
    "on_node",
]


def _pod_without_network(event: Json) -> str | None:
    """The pod whose sandbox could not be made, where the event is about that."""
    is_that = event["reason"] == "FailedCreatePodSandBox"
    return event["regarding"]["name"] if is_that else None
