"""Images that must not be used: each is refused with its reason, nothing is opened or changed because of it, and the machine
starts when the image is replaced by a good one."""

import base64
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Json, on_node
from tests.support.disks import claimed, read, with_disk
from tests.support.machine import Machine, condition, vmi
from tests.support.process import run
from tests.support.storage import local_volume

MIB = 1 << 20
# What stands in the place of disk.img, made by a shell in the volume's directory under the name of new, and what is said of it.
REFUSED = {
    "a link": ("ln -s /etc/passwd new", "symbolic link"),
    "a device": ("mknod new c 1 8", "not a regular file"),
}
# Images by the arguments of qemu-img, and what is said of them.
REFUSED_IMAGES = {
    "a qcow2 with a backing file": ("-f qcow2 -u -b /etc/passwd -F raw IMAGE 16M", "backing file"),
    "a qcow2 with a data file": ("-f qcow2 -o data_file=DATA IMAGE 16M", "data file"),
    "a VMDK": ("-f vmdk IMAGE 16M", "vmdk"),
    "a LUKS": ("-f luks --object secret,id=s,data=s -o key-secret=s IMAGE 16M", "luks"),
}
_HEAD_BYTES = 4096


@pytest.mark.timeout(240)
async def test_images_that_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    refused = dict(REFUSED)
    for what, (arguments, words) in REFUSED_IMAGES.items():
        refused[what] = (await _head_of_image(tmp_path, arguments), words)
    async with local_volume(cluster, "data", 64 * MIB) as volume:
        await _put(volume.path, REFUSED["a link"][0])
        await cluster.apply(with_disk(vmi("picky"), "data", claimed("data")))
        for what, (command, words) in refused.items():
            await _put(volume.path, command)

            def says(state: Json | None, words: str = words) -> bool:
                synchronized = condition(state, "Synchronized")
                is_said = words in synchronized.get("message", "").lower()
                return synchronized.get("status") == "False" and is_said

            shown = await cluster.until(
                "vmi", "picky", says, within_s=30, what=f"{what} is refused: {words}"
            )
            message = condition(shown, "Synchronized")["message"]
            assert '"data"' in message, message
        passwd = (await on_node("stat", "-c", "%u %a", "/etc/passwd")).stdout.strip()
        assert passwd == "0 644"
        await _put(
            volume.path,
            "truncate -s 16M new && printf good | dd of=new bs=1M seek=1 conv=notrunc",
        )
        machine = Machine(cluster, "picky")
        await machine.console_shows("picky login:")
        assert await read(machine, "data", 4) == "good"


async def _head_of_image(directory: Path, arguments: str) -> str:
    """A shell command that makes an image with the head of the one that qemu-img makes, and as long as that."""
    image = directory / "image"
    words = arguments.replace("IMAGE", str(image)).replace("DATA", str(directory / "data")).split()
    await run("qemu-img", "create", "-q", *words)
    head, size = image.read_bytes()[:_HEAD_BYTES], image.stat().st_size
    encoded = base64.b64encode(head).decode()
    return f"echo {encoded} | base64 -d >new && truncate -s {size} new"


async def _put(directory: str, command: str) -> None:
    """Replace what stands in the volume, at once: in one without an image the launcher makes one of its own."""
    await on_node("sh", "-c", f"cd {directory} && {command} && mv -fT new disk.img")
