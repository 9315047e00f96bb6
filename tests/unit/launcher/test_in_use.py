"""An image that another QEMU holds, by texts that libvirt has passed on from QEMU 4 to 10."""

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.lifecycle import preparation
from podvisor_launcher.lifecycle.in_use import message_of_use
from podvisor_launcher.lifecycle.plan import MAX_START_ATTEMPTS
from podvisor_launcher.settings import Settings

from tests.unit.launcher.launched import launcher

DISKS = {
    "root": ResolvedDisk(Image("/disks/root.qcow2", "qcow2"), Image("/images/root.img", "raw")),
    "data": ResolvedDisk(Image("/run/podvisor/volumes/data/disk.img", "raw")),
    "block": ResolvedDisk(Image("/dev/podvisor/block", "raw", is_block=True)),
}
EXITED = (
    "internal error: process exited while connecting to monitor: "
    "2026-11-29T01:00:00.000000Z qemu-system-x86_64: "
)
CLOSED = (
    "internal error: QEMU unexpectedly closed the monitor (vm='default_myvm'): "
    "2026-11-29T01:00:00.000000Z qemu-system-x86_64: "
)
NODE = '-blockdev {"node-name":"libvirt-1-format","read-only":false,"driver":"raw"}: '


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (
            EXITED
            + "-device virtio-blk-pci-non-transitional,bus=pci.4,addr=0x0,drive=libvirt-1-format,id=ua-data,"
            'write-cache=on,werror=stop,rerror=stop: Failed to get "write" lock\n'
            "Is another process using the image [/run/podvisor/volumes/data/disk.img]?",
            "data",
        ),
        (
            CLOSED + '-device {"driver":"virtio-blk-pci","bus":"pci.2","drive":"libvirt-2-storage",'
            '"id":"ua-data","werror":"stop"}: Failed to get "write" lock\n'
            "Is another process using the image [/run/podvisor/volumes/data/disk.img]?\n",
            "data",
        ),
        (
            CLOSED + NODE + 'Failed to get "write" lock\n'
            "Is another process using the image [/dev/podvisor/block]?",
            "block",
        ),
        (
            EXITED + NODE + 'Failed to get "consistent read" lock\n'
            "Is another process using the image [/images/root.img]?",
            "root",
        ),
        (
            EXITED + NODE + 'Failed to get shared "write" lock\n'
            "Is another process using the image [/disks/root.qcow2]?",
            "root",
        ),
        # libvirt keeps the last lines only, and the last of QEMU's may be missing.
        (
            EXITED + "-device ide-hd,bus=ide.0,unit=0,drive=drive-ide0-0-0,id=ua-data,bootindex=1: "
            'Failed to get "write" lock',
            "data",
        ),
        (EXITED + NODE + 'Failed to get "write" lock\n', ""),
        (
            EXITED + NODE + 'Failed to get "write" lock\n'
            "Is another process using the image [/somewhere/else]?",
            "",
        ),
    ],
)
def test_a_lock_is_told_by_the_name_of_its_volume(words: str, name: str) -> None:
    which = f'Volume "{name}"' if name else "A volume"
    told = f"{which} is in use by another machine; this one starts when it is free."
    assert message_of_use(words, DISKS) == told


@pytest.mark.parametrize(
    "words",
    [
        EXITED + NODE + "Could not open '/run/podvisor/volumes/data/disk.img': Permission denied",
        EXITED + "Failed to lock byte 100",
        EXITED + "cannot set up guest memory 'pc.ram': Cannot allocate memory",
        "",
    ],
)
def test_another_failure_is_another_failure(words: str) -> None:
    assert message_of_use(words, DISKS) is None


async def test_an_image_in_use_is_waited_for_however_long_it_takes(
    settings: Settings, machine_spec: pb.DomainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings.disks / "root.qcow2"
    words = (
        f'{CLOSED}{NODE}Failed to get "write" lock\nIs another process using the image [{path}]?'
    )
    failures = [words] * (2 * MAX_START_ATTEMPTS)
    create = libvirt.virDomain.createWithFlags

    def start(domain: libvirt.virDomain, flags: int) -> None:
        if not failures:
            create(domain, flags)
            return
        error = libvirt.libvirtError("")
        error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, failures.pop(), 2)
        raise error

    monkeypatch.setattr(libvirt.virDomain, "createWithFlags", start)
    monkeypatch.setattr(preparation, "START_RETRY_MS", 1)
    monkeypatch.setattr(preparation, "_IN_USE_RETRY_MAX_MS", 2)
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        waiting = await it.until_state(pb.DOMAIN_STATE_WAITING)
        assert waiting.reason == pb.DOMAIN_REASON_INVALID_DISK
        assert waiting.message.startswith('Volume "root" is in use by another machine')
        # Said once, however often it is tried.
        running = await it.until(lambda report: report.sequence > waiting.sequence)
        assert running.state == pb.DOMAIN_STATE_RUNNING
    assert not failures
