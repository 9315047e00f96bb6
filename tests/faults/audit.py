"""Who asked for what, by the API server's audit log: the proof that only the leader writes, and the count of what was asked.

Invariant: nothing is sampled; every write that the API server has answered is in the log.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from tests.perf.measure import AUDIT_LOG, OURS, READING
from tests.support.cluster import Json

_ACCOUNT = "system:serviceaccount:kubevirt:virt-controller"
_POD = "authentication.kubernetes.io/pod-name"
# Events may be sent a moment after what they tell of, and any replica may make or replace the authority.
_NOT_THE_LEADERS = ("events", "secrets")


@dataclass(frozen=True, slots=True)
class Write:
    """One answered write of a controller; times in seconds as of time.time()."""

    began_s: float
    ended_s: float
    writer: str  # the pod, or what a process outside is called
    verb: str
    resource: str
    namespace: str
    name: str
    code: int


def controller_writes(mark: int, *, outsider: str = "outside") -> list[Write]:
    """What controllers have written since audit_mark() gave `mark`, by the time at which it arrived."""
    return sorted(_writes(mark, outsider), key=lambda write: write.began_s)


def _writes(mark: int, outsider: str) -> Iterator[Write]:
    for entry in _answered(mark):
        if entry["user"]["username"] != _ACCOUNT or entry["verb"] in READING:
            continue
        target = entry.get("objectRef", {})
        yield Write(
            _time(entry["requestReceivedTimestamp"]),
            _time(entry["stageTimestamp"]),
            entry["user"].get("extra", {}).get(_POD, [outsider])[0],
            entry["verb"],
            _resource_of(entry),
            target.get("namespace", ""),
            target.get("name", ""),
            entry.get("responseStatus", {}).get("code", 0),
        )


def _answered(mark: int) -> Iterator[Json]:
    """Every request that was answered since `mark`, in the order of the answers, without dry runs."""
    with AUDIT_LOG.open("rb") as log:
        log.seek(mark)
        for line in log:
            if not line.endswith(b"\n"):
                return
            entry: Json = json.loads(line)
            if entry["stage"] == "ResponseComplete" and "dryRun=All" not in entry["requestURI"]:
                yield entry


def _resource_of(entry: Json) -> str:
    target = entry.get("objectRef", {})
    return "/".join(filter(None, (target.get("resource"), target.get("subresource"))))


def assert_one_writer(writes: list[Write]) -> list[str]:
    """Every write was made by whoever had the lease, and no two replicas were at work at the same time. Who led, in order."""
    holder = ""
    terms: list[str] = []
    last: Write | None = None
    for write in writes:
        if write.resource == "leases":
            holder = write.writer if write.code < 300 else holder
        elif write.resource not in _NOT_THE_LEADERS:
            assert write.writer == holder or not holder, f"{holder} has the lease: {write}"
            if last is not None and last.writer != write.writer:
                assert last.ended_s <= write.began_s, f"at the same time: {last}, {write}"
            if last is None or last.writer != write.writer:
                terms.append(write.writer)
            last = write
    return terms


def made(writes: list[Write], namespace: str, resource: str) -> Counter[str]:
    """How often an object of each name was created in a namespace."""
    return Counter(
        write.name
        for write in writes
        if (write.verb, write.resource, write.namespace) == ("create", resource, namespace)
        and write.code == 201
    )


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@dataclass(slots=True)
class Ledger:
    """What podvisor's accounts asked for, by the API server's audit log."""

    # By `account verb resource`, events and leases apart.
    writes: Counter[str] = field(default_factory=Counter)
    # The same, by namespace/name of what was written.
    written: Counter[str] = field(default_factory=Counter)
    events: int = 0
    lists: Counter[str] = field(default_factory=Counter)  # by `pod path`

    def of(self, names: Iterable[str]) -> int:
        """Writes about objects of these names."""
        return sum(self.written[name] for name in names)


def ledger(mark: int) -> Ledger:
    """All that podvisor's accounts asked for and was answered since audit_mark() gave `mark`."""
    found = Ledger()
    for entry in _answered(mark):
        account = entry["user"]["username"].rsplit(":", 1)[-1]
        if account not in OURS:
            continue
        target, resource = entry.get("objectRef", {}), _resource_of(entry)
        if entry["verb"] == "list" and "continue=" not in entry["requestURI"]:
            pod = entry["user"]["extra"][_POD][0]
            path = entry["requestURI"].partition("?")[0]
            found.lists[f"{pod} {path}"] += 1
        if entry["verb"] in READING or resource == "leases":
            continue
        if resource == "events":
            found.events += 1
            continue
        found.writes[f"{account} {entry['verb']} {resource}"] += 1
        found.written[f"{target.get('namespace', '')}/{target.get('name', '')}"] += 1
    return found
