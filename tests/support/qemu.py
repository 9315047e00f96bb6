"""What a machine's QEMU runs with, read from its command line on the node.

Invariant: shows what the machine was started with; what came to it later is not on the command line.
"""

import json
import re
from dataclasses import dataclass

from tests.support.cluster import Json
from tests.support.machine import Machine

_ARGUMENT = re.compile(r" -(device|blockdev|object) (\{.*?\})(?= -|$)")
_ALIAS_PREFIX = "ua-"


@dataclass(frozen=True, slots=True)
class QemuDisk:
    """A disk as QEMU has it: the device that the guest sees, and what opens the image behind it."""

    device: Json
    format: Json
    storage: Json


@dataclass(frozen=True, slots=True)
class Qemu:
    """A running QEMU."""

    disks: dict[str, QemuDisk]  # by the manifest's names; without what has no image
    io_threads: frozenset[str]


async def qemu_of(machine: Machine) -> Qemu:
    """Read the command line of the machine's QEMU."""
    [command] = [c for c in (await machine.processes()).values() if c.startswith("/usr/bin/qemu-")]
    given: dict[str, list[Json]] = {"device": [], "blockdev": [], "object": []}
    for kind, text in _ARGUMENT.findall(command):
        given[kind].append(json.loads(text))
    nodes = {node["node-name"]: node for node in given["blockdev"]}
    return Qemu(
        disks={
            device["id"].removeprefix(_ALIAS_PREFIX): _disk(device, nodes)
            for device in given["device"]
            if device.get("drive") in nodes
        },
        io_threads=frozenset(o["id"] for o in given["object"] if o["qom-type"] == "iothread"),
    )


def _disk(device: Json, nodes: dict[str, Json]) -> QemuDisk:
    """Where a format adds nothing to its storage, the device is given the storage itself."""
    top = nodes[device["drive"]]
    return QemuDisk(device, top, nodes.get(top.get("file", ""), top))
