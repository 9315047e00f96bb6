"""Who wrote what, by the API server's audit log: the proof that only the leader writes.

Invariant: nothing is sampled; every write that the API server has answered is in the log.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tests.perf.measure import AUDIT_LOG, READING

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
    with AUDIT_LOG.open("rb") as log:
        log.seek(mark)
        for line in log:
            if not line.endswith(b"\n"):
                return
            entry = json.loads(line)
            target = entry.get("objectRef", {})
            if entry["user"]["username"] != _ACCOUNT or entry["verb"] in READING:
                continue
            if entry["stage"] != "ResponseComplete" or "dryRun=All" in entry["requestURI"]:
                continue
            yield Write(
                _time(entry["requestReceivedTimestamp"]),
                _time(entry["stageTimestamp"]),
                entry["user"].get("extra", {}).get(_POD, [outsider])[0],
                entry["verb"],
                "/".join(filter(None, (target.get("resource"), target.get("subresource")))),
                target.get("namespace", ""),
                target.get("name", ""),
                entry.get("responseStatus", {}).get("code", 0),
            )


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
