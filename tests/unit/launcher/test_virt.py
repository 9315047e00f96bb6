"""The facade over libvirt, against libvirt's test driver: states, events, errors, deadlines, lost connections."""

import asyncio
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest
from podvisor_launcher.virt import connection as facade
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import (
    DomainMissing,
    DomainRejected,
    DomainStartFailed,
    During,
    LibvirtFailed,
    LibvirtUnreachable,
    translate,
)
from podvisor_launcher.virt.events import told_of_crashes
from podvisor_launcher.virt.guest import Absent, Active, Crash, DiskError, Inactive, Off, Paused
from podvisor_launcher.virt.power import press_power_button
from podvisor_launcher.virt.states import crash_by_watchdog, crash_of, guest_of

from tests.unit.launcher.conftest import connected

XML = "<domain type='test'><name>default_{}</name><memory>8192</memory><os><type>hvm</type></os></domain>"


async def test_the_life_of_a_domain(name: str) -> None:
    changed = asyncio.Event()
    domain = f"default_{name}"
    async with connected(on_change=changed.set) as libvirt_:
        assert await libvirt_.guest(domain) == Absent()
        await libvirt_.define(XML.format(name))
        assert isinstance(await libvirt_.guest(domain), Inactive)
        changed.clear()
        await libvirt_.start(domain)
        async with asyncio.timeout(5):
            await changed.wait()
        assert await libvirt_.guest(domain) == Active()
        assert f"<name>{domain}</name>" in await libvirt_.domain_xml(domain)
        _outside(domain, "suspend")
        assert await libvirt_.guest(domain) == Active(Paused.BY_USER)
        await libvirt_.resume(domain)
        assert await libvirt_.guest(domain) == Active()
        changed.clear()
        await press_power_button(libvirt_, domain)
        async with asyncio.timeout(5):
            await changed.wait()
        assert await libvirt_.guest(domain) == Inactive(Off.SHUTDOWN)
        await libvirt_.start(domain)
        await libvirt_.destroy(domain)
        assert await libvirt_.guest(domain) == Inactive(Off.DESTROYED)


async def test_a_start_can_be_asked_to_leave_the_guest_paused(name: str) -> None:
    """libvirt's test driver knows no such start, and names the flag that it does not know."""
    async with connected() as libvirt_:
        await libvirt_.define(XML.format(name))
        with pytest.raises(DomainRejected, match=r"unsupported flags \(0x1\)"):
            await libvirt_.start(f"default_{name}", paused=True)


def _outside(domain: str, verb: str) -> None:
    """Somebody else does something to the domain."""
    getattr(libvirt.open("test:///default").lookupByName(domain), verb)()


async def test_what_libvirt_says_of_disks(name: str) -> None:
    """The test driver makes errors up, a disk after the other, and has no way to change a size."""
    disks = "".join(
        f"<disk type='file'><source file='/{dev}'/><target dev='{dev}' bus='virtio'/></disk>"
        for dev in ("vda", "vdb")
    )
    xml = XML.replace("</domain>", f"<devices>{disks}</devices></domain>")
    async with connected() as libvirt_:
        await libvirt_.define(xml.format(name))
        await libvirt_.start(f"default_{name}")
        errors = await libvirt_.disk_errors(f"default_{name}")
        assert errors == {"vda": DiskError.OTHER, "vdb": DiskError.NO_SPACE}
        with pytest.raises(LibvirtFailed, match="BlockResize"):
            await libvirt_.resize_disk(f"default_{name}", "vda", 1 << 41)


async def test_errors_have_types(name: str) -> None:
    domain = f"default_{name}"
    async with connected() as libvirt_:
        with pytest.raises(DomainMissing):
            await libvirt_.destroy(domain)
        for bad in ("<domain", "<domain type='test'><name>x</name></domain>", "<network/>"):
            with pytest.raises(DomainRejected):
                await libvirt_.define(bad)
        await libvirt_.define(XML.format(name))
        with pytest.raises(DomainMissing):
            await libvirt_.destroy(domain)


async def test_without_a_connection_nothing_is_known(tmp_path: Path) -> None:
    lonely = LibvirtConnection(f"qemu+unix:///session?socket={tmp_path}/absent", lambda: None)
    with pytest.raises(LibvirtUnreachable):
        await lonely.guest("x")
    running = asyncio.create_task(lonely.run(), name="libvirt")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await running
    assert not lonely.connected
    assert lonely.version == ""


async def test_a_call_that_hangs_is_given_up_with_its_connection(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "QUERY_TIMEOUT_S", 0.05)
    release = threading.Event()
    changed = asyncio.Queue[None]()
    async with connected(on_change=lambda: changed.put_nowait(None)) as libvirt_:
        first = libvirt_._connection
        with monkeypatch.context() as hanging:
            hanging.setattr(libvirt.virConnect, "lookupByName", lambda *_: release.wait(10))
            try:
                with pytest.raises(LibvirtUnreachable, match="no answer"):
                    await libvirt_.guest("x")
            finally:
                release.set()
        async with asyncio.timeout(5):
            while libvirt_._connection in (first, None):
                await changed.get()
        monkeypatch.setattr(facade, "QUERY_TIMEOUT_S", 10.0)
        assert await libvirt_.guest(f"default_{name}") == Absent()


async def test_a_connection_that_comes_too_late_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facade, "_OPEN_TIMEOUT_S", 0.05)
    release, opened, open_ = threading.Event(), queue.Queue[libvirt.virConnect](), libvirt.open

    def slow_open(uri: str) -> libvirt.virConnect:
        release.wait(10)
        connection = open_(uri)
        opened.put(connection)
        return connection

    monkeypatch.setattr(libvirt, "open", slow_open)
    late = LibvirtConnection("test:///default", lambda: None)
    with pytest.raises(LibvirtUnreachable, match="does not take"):
        await late._open()
    release.set()
    late._pool.shutdown(wait=True)
    with pytest.raises(libvirt.libvirtError):
        opened.get(timeout=5).getLibVersion()
    assert not late.connected


async def test_a_lost_connection_is_opened_again(name: str) -> None:
    changed = asyncio.Queue[None]()
    async with connected(on_change=lambda: changed.put_nowait(None)) as libvirt_:
        first = libvirt_._connection
        assert first is not None
        libvirt_._lost.set()  # what the close callback does; the test driver never loses one
        async with asyncio.timeout(5):
            while libvirt_._connection in (first, None):
                await changed.get()
        assert await libvirt_.guest(f"default_{name}") == Absent()
        assert libvirt_.version.count(".") == 2


class FakeError(libvirt.libvirtError):  # type: ignore[misc]
    """An error as libvirt would raise it."""

    def __init__(self, code: int, domain: int) -> None:
        Exception.__init__(self, "words")
        self.err = (code, domain, "words", 2, None, None, None, -1, -1)


@pytest.mark.parametrize(
    ("code", "domain", "during", "type_"),
    [
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, During.OTHER, LibvirtUnreachable),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_REMOTE, During.START, LibvirtUnreachable),
        (libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_FROM_NONE, During.OTHER, LibvirtUnreachable),
        (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, During.OTHER, DomainMissing),
        (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_FROM_QEMU, During.OTHER, DomainMissing),
        (libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_FROM_DOMAIN, During.DEFINE, DomainRejected),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_FROM_QEMU, During.START, DomainRejected),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_FROM_QEMU, During.OTHER, LibvirtFailed),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, During.START, DomainStartFailed),
        (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_QEMU, During.OTHER, LibvirtFailed),
    ],
)
def test_only_codes_decide(code: int, domain: int, during: During, type_: type[Exception]) -> None:
    typed = translate(FakeError(code, domain), during)
    assert type(typed) is type_
    assert str(typed) == "words"


@pytest.mark.parametrize(
    ("state", "reason", "guest"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, Active()),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, Active(Paused.ENDING)),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, Active(Paused.STARTING)),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, Active(Paused.IO_ERROR)),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, Active(Paused.OTHER)),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, Active(Paused.OTHER)),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DAEMON, Inactive(Off.CRASHED)),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, Inactive(Off.UNKNOWN)),
        (libvirt.VIR_DOMAIN_CRASHED, 0, Inactive(Off.CRASHED)),
    ],
)
def test_states(state: int, reason: int, guest: object) -> None:
    assert guest_of(state, reason) == guest


@pytest.mark.parametrize(
    ("crash_in", "event", "crash"),
    [
        (
            crash_of,
            (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED),
            Crash.PANIC,
        ),
        (
            crash_of,
            (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_CRASHLOADED),
            None,
        ),
        (crash_of, (libvirt.VIR_DOMAIN_EVENT_STARTED, 0), None),
        (crash_by_watchdog, (libvirt.VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF,), Crash.WATCHDOG),
        (crash_by_watchdog, (libvirt.VIR_DOMAIN_EVENT_WATCHDOG_SHUTDOWN,), None),
        (crash_by_watchdog, (libvirt.VIR_DOMAIN_EVENT_WATCHDOG_RESET,), None),
    ],
)
async def test_what_ends_a_guest_is_told_before_that_something_has_changed(
    crash_in: Callable[..., Crash | None], event: tuple[int, ...], crash: Crash | None
) -> None:
    heard: list[Crash | str] = []
    changed = asyncio.Event()

    def on_change() -> None:
        heard.append("changed")
        changed.set()

    callback = told_of_crashes(asyncio.get_running_loop(), crash_in, heard.append, on_change)
    await asyncio.to_thread(callback, None, None, *event, None)
    async with asyncio.timeout(5):
        await changed.wait()
    assert heard == [*([crash] if crash else []), "changed"]
