"""Everything a user could have seen while a fault was at work: instances, machines and the node's list of domains, in order.

Invariant: nothing is sampled. Instances and machines come from watches; domains from the handler's own stream, which is
opened again as soon as it ends, since the handler may be what is being killed. So "never" can be proven of what the API
server and the handler have said. Only where the API server itself is away, there may be gaps: then what is there is looked at
anew when it is back. Times are seconds of the clock that this process and the node share.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.process import end

HANDLER_SOCKET = "/run/podvisor/handler.sock"
HANDLER_SERVICE = "podvisor.handler.v1.HandlerService"


@dataclass(frozen=True, slots=True)
class Seen:
    """One state of one object; `state` is None when it was gone, or when nobody would say."""

    at_s: float
    kind: str  # vmi, vm or domain
    name: str
    state: Json | None

    @property
    def phase(self) -> str:
        """A VirtualMachineInstance's phase, a VirtualMachine's printable status, a domain's reported state."""
        status = self._status
        if self.kind == "domain":
            return str((self.state or {}).get("report", {}).get("state", ""))
        return str(status.get("printableStatus" if self.kind == "vm" else "phase", ""))

    @property
    def connection(self) -> str:
        """How the handler stands with a domain's launcher."""
        return str((self.state or {}).get("connection", "")).removeprefix("LAUNCHER_CONNECTION_")

    @property
    def epoch(self) -> str:
        """Which launcher process reported a domain."""
        return str((self.state or {}).get("report", {}).get("epoch", ""))

    def condition(self, type_: str) -> tuple[str, str]:
        """Status and reason of a condition; two empty strings when there is none."""
        for condition in self._status.get("conditions", []):
            if condition["type"] == type_:
                return condition["status"], condition.get("reason", "")
        return "", ""

    @property
    def is_right(self) -> bool:
        """What a user expects of a machine whose guest runs."""
        if self.kind == "domain":
            return self.connection == "CONNECTED" and self.phase == "DOMAIN_STATE_RUNNING"
        return self.phase == "Running" and self.condition("Ready")[0] == "True"

    @property
    def _status(self) -> Json:
        status: Json = (self.state or {}).get("status", {})
        return status

    def __str__(self) -> str:
        if self.state is None:
            return f"{self.at_s:.3f} {self.kind} {self.name}: gone"
        if self.kind == "domain":
            said = f"{self.connection} {self.phase} epoch {self.epoch}"
        else:
            uid = self.state["metadata"]["uid"]
            said = f"{self.phase or '-'} Ready={self.condition('Ready')} {uid}"
        return f"{self.at_s:.3f} {self.kind} {self.name}: {said}"


@dataclass(slots=True)
class History:
    """What was seen so far, oldest first."""

    cluster: Cluster
    seen: list[Seen] = field(default_factory=list)
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, seen: Seen) -> None:
        """Take note of one more state."""
        async with self._grown:
            self.seen.append(seen)
            self._grown.notify_all()

    def of(self, kind: str, name: str) -> list[Seen]:
        """All states of one object."""
        return [seen for seen in self.seen if (seen.kind, seen.name) == (kind, name)]

    def last(self, kind: str, name: str) -> Seen:
        """The newest state of one object; gone when it was never seen."""
        return (self.of(kind, name) or [Seen(0.0, kind, name, None)])[-1]

    def phases(self, kind: str, name: str) -> set[str]:
        """Every phase in which the object was ever seen."""
        return {seen.phase for seen in self.of(kind, name) if seen.state is not None}

    async def first(
        self,
        kind: str,
        name: str,
        holds: Callable[[Seen], bool],
        *,
        within_s: float,
        what: str,
        after_s: float = 0.0,
    ) -> Seen:
        """The first state at or after `after_s` of which `holds` is true. Waits for it `within_s`, else raises AssertionError."""
        checked = 0
        try:
            async with asyncio.timeout(within_s), self._grown:
                while True:
                    for seen in self.seen[checked:]:
                        ours = (seen.kind, seen.name) == (kind, name) and seen.at_s >= after_s
                        if ours and holds(seen):
                            return seen
                    checked = len(self.seen)
                    await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {what}\n{self}") from None

    async def until_right(self, name: str, *, since_s: float, within_s: float) -> float:
        """Wait until instance and domain are as they are when a guest runs; how long after `since_s` that was, in seconds.

        A state of the instance from before `since_s` counts when nothing was said since. The domain has to be said again.
        """
        domain = await self.first(
            "domain",
            name,
            lambda seen: seen.is_right,
            after_s=since_s,
            within_s=within_s,
            what="the handler lists the running domain",
        )
        right_s = domain.at_s
        for kind in ("vmi", "vm"):
            if self.of(kind, name) and not self.last(kind, name).is_right:
                found = await self.first(
                    kind,
                    name,
                    lambda seen: seen.is_right,
                    after_s=self.last(kind, name).at_s,
                    within_s=within_s,
                    what=f"the {kind} is Running and Ready",
                )
                right_s = max(right_s, found.at_s)
        return right_s - since_s

    def __str__(self) -> str:
        return "\n".join(str(seen) for seen in self.seen)


@asynccontextmanager
async def recording(cluster: Cluster, *, gaps: bool = False) -> AsyncIterator[History]:
    """Records the namespace for the body, from a moment before it starts. `gaps`: while the API server is away, nothing is seen."""
    history = History(cluster)
    ready = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
    tasks = [
        asyncio.create_task(_objects(history, "vmi", ready[0], gaps), name="vmi history"),
        asyncio.create_task(_objects(history, "vm", ready[1], gaps), name="vm history"),
        asyncio.create_task(_domains(history, ready[2]), name="domain history"),
    ]
    try:
        async with asyncio.timeout(20):
            for event in ready:
                await event.wait()
        yield history
        for task in tasks:
            assert not task.done(), f"{task.get_name()} ended: {task.exception()!r}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _objects(history: History, kind: str, ready: asyncio.Event, gaps: bool) -> None:
    """All objects of a kind: those that are there, then each change."""
    while True:
        listed = await history.cluster.kubectl("get", kind, "-o", "json", check=not gaps)
        if listed.exit_code == 0:
            await _listed_and_followed(history, kind, ready, json.loads(listed.stdout))
        assert gaps, f"the watch of {kind} ended"


async def _listed_and_followed(
    history: History, kind: str, ready: asyncio.Event, listed: Json
) -> None:
    namespace, version = history.cluster.namespace, listed["metadata"]["resourceVersion"]
    items = {item["metadata"]["name"]: item for item in listed["items"]}
    known = {seen.name for seen in history.seen if seen.kind == kind and seen.state is not None}
    for name in known - items.keys():
        await history.add(Seen(time.time(), kind, name, None))
    for name, item in items.items():
        await history.add(Seen(time.time(), kind, name, item))
    # The raw path, since `kubectl get --watch` cannot start at a version.
    plural = {"vmi": "virtualmachineinstances", "vm": "virtualmachines"}[kind]
    path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/{plural}?watch=1&resourceVersion={version}"
    ready.set()
    async for event in _json_of(str(ROOT / "dev/kubectl"), "get", "--raw", path):
        name = event["object"]["metadata"]["name"]
        gone = event["type"] == "DELETED"
        await history.add(Seen(time.time(), kind, name, None if gone else event["object"]))


# A process on the node outlives the `docker exec` that started it; this one ends with its input.
_WATCH_DOMAINS = f"""
exec 3<&0
grpcurl -plaintext -unix -connect-timeout 0.2 {HANDLER_SOCKET} {HANDLER_SERVICE}/WatchDomains & stream=$!
(cat; kill $stream) <&3 >/dev/null 2>&1 &
wait $stream
"""


async def _domains(history: History, ready: asyncio.Event) -> None:
    """The handler's stream of domains. One that ends at once costs the time of a process, which is pause enough."""
    while True:
        stream = _json_of(str(ROOT / "dev/node"), "node1", "sh", "-c", _WATCH_DOMAINS)
        ready.set()
        async for reply in stream:
            machine = reply["machine"]
            if machine["reference"]["namespace"] == history.cluster.namespace:
                name, gone = machine["reference"]["name"], reply.get("gone", False)
                await history.add(Seen(time.time(), "domain", name, None if gone else machine))


async def _json_of(*command: str) -> AsyncIterator[Json]:
    """The JSON values that a command prints, as they come. Its input ends when nobody reads them any more."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    decoder, text = json.JSONDecoder(), ""
    try:
        assert process.stdout is not None
        while chunk := await process.stdout.read(1 << 16):
            text += chunk.decode(errors="replace")
            while stripped := text.lstrip():
                try:
                    value, length = decoder.raw_decode(stripped)
                except json.JSONDecodeError:
                    break
                text = stripped[length:]
                yield value
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(2):
                await process.wait()
        except TimeoutError:
            await end(process)
