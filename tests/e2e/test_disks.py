"""What a machine's disks may be made of."""

import base64

from tests.support.cluster import Cluster
from tests.support.machine import Machine, user_data, vmi


async def test_raw_image_and_base64_user_data(cluster: Cluster) -> None:
    """A raw disk boots as a qcow2 does, and user-data may come as base64, without its first line too."""
    machine = vmi("raw")
    machine["spec"]["volumes"][0]["containerDisk"]["image"] = "podvisor/guest-raw:devel"
    plain = user_data("from-base64").removeprefix("#cloud-config\n")
    encoded = base64.encodebytes(plain.encode()).decode()  # in lines, as people paste it
    machine["spec"]["volumes"][1]["cloudInitNoCloud"] = {"userDataBase64": encoded}
    await cluster.apply(machine)
    await Machine(cluster, "raw").console_shows("from-base64 login:")
    assert (await Machine(cluster, "raw").ssh("hostname")).stdout.strip() == "from-base64"


async def test_what_a_guest_writes_ends_with_its_pod(cluster: Cluster) -> None:
    """The guest can write to its disk; the image below stays as it is, so that another machine of it starts afresh."""
    for name in ("writer", "reader"):
        await cluster.apply(vmi(name))
        machine = Machine(cluster, name)
        await machine.console_shows(rf"{name} login:")
        read = "dd if=/dev/vda bs=512 skip=40000 count=1 2>/dev/null | tr -d '\\0'"
        if name == "writer":
            await machine.ssh(
                "printf scribble | dd of=/dev/vda bs=512 seek=40000 conv=notrunc && sync"
            )
            assert (await machine.ssh(read)).stdout == "scribble"
        else:
            assert "scribble" not in (await machine.ssh(read)).stdout
