"""libvirt for coroutines: one connection that comes back by itself, every call in a thread and with a deadline.

Invariants: no libvirt call runs in the event loop's thread; a call that does not return in time is abandoned together with its
connection and reported as LibvirtUnreachable, and so is every call while there is no connection. Only a question to a guest's agent is
abandoned alone, for the guest may be why. The connection knows nothing of specifications or policy. Only this package imports libvirt.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import libvirt
import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.aio.threads import in_own_thread
from podvisor_common.guest_interfaces import GuestInterface
from podvisor_common.launcher_pod import FD_SETS_DIRECTORY

from podvisor_launcher.virt.agent import AgentQuestions
from podvisor_launcher.virt.errors import DomainMissing, During, LibvirtUnreachable, translate
from podvisor_launcher.virt.events import ensure_event_loop, told, told_of_crashes
from podvisor_launcher.virt.guest import Absent, Crash, DiskError, Guest
from podvisor_launcher.virt.jobs import wait_for_jobs
from podvisor_launcher.virt.open_files import LIVE, OpenFile, remove_unused_sets, with_open_file
from podvisor_launcher.virt.states import (
    crash_by_watchdog,
    crash_of,
    disk_error_of,
    guest_of,
    sizes_of,
)

_T = TypeVar("_T")
_Opened: TypeAlias = tuple[libvirt.virConnect, list[int], int]  # connection, subscriptions, version
_log = structlog.stdlib.get_logger(__name__)

_THREADS = 3  # one may hang in a start, one in a query, one is left for destroy
_OPEN_TIMEOUT_S = 10.0
QUERY_TIMEOUT_S = 10.0
_CHANGE_TIMEOUT_S = 60.0
# A daemon that hangs is noticed after ten seconds; one that ends, at once.
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 1


class LibvirtConnection:
    """A connection to the libvirt at `uri`. `on_change` is called in the event loop whenever something about a domain or
    the connection may have changed, `on_devices` where that may be the devices of one, and `on_agent` where it may be the agent in
    its guest; `on_crash` what ends a guest that does not end by itself. They must only take note."""

    def __init__(
        self,
        uri: str,
        on_change: Callable[[], None],
        on_devices: Callable[[], None] = lambda: None,
        on_agent: Callable[[], None] = lambda: None,
        on_crash: Callable[[Crash], None] = lambda _: None,
    ) -> None:
        self._uri = uri
        self._on_change = on_change
        self._on_devices = on_devices
        self._on_agent = on_agent
        self._on_crash = on_crash
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="libvirt")
        self._connection: libvirt.virConnect | None = None
        self._lost = asyncio.Event()
        self._connected = asyncio.Event()
        self._subscriptions: list[int] = []
        self._version = ""
        # Calls that give a running guest a device, or change one. One whose answer was not waited for goes on, and so may one of a
        # process that was killed: with every connection, one is taken to have begun.
        self.device_calls_begun = self.device_calls_over = 0
        self.connections = 0  # that there have been
        self._settling: asyncio.Task[None] | None = None
        self.agent = AgentQuestions(lambda: self._connection)

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now, as far as is known."""
        return self._connection is not None

    @property
    def is_test_driver(self) -> bool:
        """It is libvirt's own mock, which knows few flags and lives in this process."""
        return self._uri.startswith("test:")

    @property
    def version(self) -> str:
        """libvirt's version as it writes it; empty before the first connection."""
        return self._version

    async def run(self) -> None:
        """Keep the connection up until cancelled. Retries quickly at first: a daemon of our own is back within a second."""
        backoff = Backoff(initial_s=0.02, max_s=2.0)
        try:
            while True:
                try:
                    await self._open()
                except LibvirtUnreachable as error:
                    _log.debug("libvirt is not reachable", error=str(error))
                    await asyncio.sleep(backoff.next_s())
                    continue
                backoff.reset()
                await self._lost.wait()
                _log.warning("lost the connection to libvirt")
                self._forget()
        finally:
            self._forget()
            self._pool.shutdown(wait=False)

    async def guest(self, name: str) -> Guest:
        """The state of the domain. Raises LibvirtUnreachable or LibvirtFailed."""

        def query(connection: libvirt.virConnect) -> Guest:
            state, reason = connection.lookupByName(name).state()
            return guest_of(state, reason)

        try:
            return await self.call(query, QUERY_TIMEOUT_S)
        except DomainMissing:
            return Absent()

    async def define(self, xml: str) -> None:
        """Make `xml` the description of its domain, new or not. Raises DomainRejected, LibvirtUnreachable, LibvirtFailed."""

        def define(connection: libvirt.virConnect) -> None:
            connection.defineXML(xml)

        await self.call(define, _CHANGE_TIMEOUT_S, During.DEFINE)

    async def start(self, name: str, *, paused: bool = False) -> None:
        """Start a defined domain; returns when its processors run, or with `paused` stand ready. Raises DomainRejected,
        DomainStartFailed, LibvirtUnreachable."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        await self.on_domain(name, lambda domain: domain.createWithFlags(flags), During.START)

    async def destroy(self, name: str) -> None:
        """End the guest at once. Raises DomainMissing when it does not run, LibvirtUnreachable, LibvirtFailed."""
        await self.on_domain(name, lambda domain: domain.destroy())

    async def resume(self, name: str) -> None:
        """Let a paused guest run. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""
        await self.on_domain(name, lambda domain: domain.resume())

    async def domain_xml(self, name: str) -> str:
        """libvirt's description of the domain. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""
        return await self.call(
            lambda connection: str(connection.lookupByName(name).XMLDesc()), QUERY_TIMEOUT_S
        )

    async def guest_interfaces(self, name: str) -> tuple[GuestInterface, ...]:
        """The network devices that the agent in a running guest tells of, within 15 seconds; no other call waits for it. Raises
        LibvirtUnreachable, LibvirtFailed."""
        return await self.agent.interfaces(name)

    async def disk_errors(self, name: str) -> Mapping[str, DiskError]:
        """What keeps disks of a running guest from working, by their names in libvirt. Raises DomainMissing,
        LibvirtUnreachable, LibvirtFailed."""

        def query(connection: libvirt.virConnect) -> dict[str, DiskError]:
            errors = connection.lookupByName(name).diskErrors()
            return {target: disk_error_of(number) for target, number in errors.items()}

        return await self.call(query, QUERY_TIMEOUT_S)

    async def resize_disk(self, name: str, target: str, size_bytes: int) -> None:
        """Have a running guest see its disk at that size, which a block device must have. Raises DomainMissing,
        LibvirtUnreachable, LibvirtFailed."""
        flags = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        await self.on_domain(name, lambda domain: domain.blockResize(target, size_bytes, flags))

    async def disk_sizes(self, name: str) -> Mapping[str, int]:
        """What a running guest sees of its disks, in bytes, by their names in libvirt; of those that QEMU has opened by itself
        or not. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""

        def query(connection: libvirt.virConnect) -> dict[str, int]:
            domain = connection.lookupByName(name)
            [(_, found)] = connection.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_BLOCK)
            return sizes_of(found)

        return await self.call(query, QUERY_TIMEOUT_S)

    async def attach(self, name: str, device: str, volume: OpenFile | None = None) -> None:
        """Give a running guest the device described by XML, behind which may be a `volume`. Raises DomainMissing,
        LibvirtUnreachable, LibvirtFailed."""
        await self._with_volume(name, volume, lambda domain: domain.attachDeviceFlags(device, LIVE))

    async def update(self, name: str, device: str) -> None:
        """Have a device of a running guest be as its XML says, as far as that can change. Raises DomainMissing,
        LibvirtUnreachable, LibvirtFailed."""
        await self._with_volume(name, None, lambda domain: domain.updateDeviceFlags(device, LIVE))

    async def add_io_thread(self, name: str, number: int) -> None:
        """Give a running guest's QEMU another I/O thread. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""
        await self.on_domain(name, lambda domain: domain.addIOThread(number, LIVE))

    async def change_medium(self, name: str, drive: str, volume: OpenFile | None = None) -> None:
        """Give a drive of a running guest the medium that the XML of the drive tells, or none: then whether the guest has
        locked it or not. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""
        flags = LIVE if volume is not None else LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
        await self._with_volume(name, volume, lambda domain: domain.updateDeviceFlags(drive, flags))

    async def ask_to_let_go(self, name: str, alias: str) -> None:
        """Ask a running guest to let go of a device, which it may do at any time, or never. Raises DomainMissing,
        LibvirtUnreachable, LibvirtFailed."""
        await self.on_domain(name, lambda domain: domain.detachDeviceAlias(alias, LIVE))

    async def remove_unused_sets(self, name: str, used: Collection[int]) -> int:
        """Have QEMU close the files that it was given for block devices and that are of none of the `used` sets; how many sets
        there were. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""
        directory = Path(FD_SETS_DIRECTORY)

        def act(connection: libvirt.virConnect) -> int:
            return remove_unused_sets(connection.lookupByName(name), directory, used)

        return await self.call(act, QUERY_TIMEOUT_S)

    async def _with_volume(
        self, name: str, volume: OpenFile | None, action: Callable[[libvirt.virDomain], object]
    ) -> None:
        if volume is None:
            await self._change_device(lambda connection: action(connection.lookupByName(name)))
            return
        kept = replace(volume, descriptor=os.dup(volume.descriptor))  # the call may outlast us
        await self._change_device(
            lambda _: with_open_file(self._uri, name, kept, action),
            when_over=lambda: os.close(kept.descriptor),
        )

    async def _change_device(
        self,
        act: Callable[[libvirt.virConnect], object],
        when_over: Callable[[], None] = lambda: None,
    ) -> None:
        loop = asyncio.get_running_loop()

        def count() -> None:
            self.device_calls_over += 1
            self._on_change()

        def over(_call: object) -> None:  # in libvirt's thread
            when_over()
            with suppress(RuntimeError):  # the loop is closed: this process is about to end
                loop.call_soon_threadsafe(count)

        if self._connection is None:
            when_over()
            raise LibvirtUnreachable("there is no connection to libvirt")
        self.device_calls_begun += 1
        await self.call(act, _CHANGE_TIMEOUT_S, when_over=over)

    async def warm_up(self, emulator: str) -> None:
        """Wait for the first connection and let libvirt probe the emulator, so that the first define does not wait for it.
        Raises LibvirtUnreachable and LibvirtFailed."""
        await self._connected.wait()

        def probe(connection: libvirt.virConnect) -> None:
            connection.getDomainCapabilities(emulator, "x86_64", "q35", "qemu")

        await self.call(probe, _CHANGE_TIMEOUT_S)

    async def on_domain(
        self,
        name: str,
        action: Callable[[libvirt.virDomain], object],
        during: During = During.OTHER,
    ) -> None:
        """Do something to a domain. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""

        def act(connection: libvirt.virConnect) -> None:
            action(connection.lookupByName(name))

        await self.call(act, _CHANGE_TIMEOUT_S, during)

    async def call(
        self,
        call: Callable[[libvirt.virConnect], _T],
        timeout_s: float,
        during: During = During.OTHER,
        when_over: Callable[[Future[_T]], None] | None = None,
    ) -> _T:
        """What `call` returns in a thread, as long as it takes no more than `timeout_s`. Raises LibvirtUnreachable and what its
        libvirtError stands for."""
        connection = self._connection
        if connection is None:
            raise LibvirtUnreachable("there is no connection to libvirt")
        work = self._pool.submit(call, connection)
        if when_over is not None:
            work.add_done_callback(when_over)
        try:
            async with asyncio.timeout(
                timeout_s
            ):  # a call that still waits for a thread is never made
                return await asyncio.wrap_future(work)
        except libvirt.libvirtError as error:
            typed = translate(error, during)
            if isinstance(typed, LibvirtUnreachable):
                self._give_up(connection)
            raise typed from error
        except TimeoutError as error:
            self._give_up(connection)
            raise LibvirtUnreachable(f"no answer from libvirt within {timeout_s:g} s") from error

    def later(self, act: Callable[[], object]) -> None:
        """Have a thread do what nobody waits for, and what may block."""
        self._pool.submit(act)

    def _give_up(self, connection: libvirt.virConnect) -> None:
        if connection is self._connection:
            self._lost.set()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._lost.clear()

        def crashes(crash_in: Callable[..., Crash | None]) -> Callable[..., None]:
            return told_of_crashes(loop, crash_in, self._on_crash, self._on_change)

        def connect() -> _Opened:
            ensure_event_loop()
            connection = libvirt.open(self._uri)
            subscriptions: list[int] = []
            try:
                connection.registerCloseCallback(told(loop, self._lost.set), None)
                if not self.is_test_driver:  # it lives in this process
                    connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
                for event, callback in (
                    (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, crashes(crash_of)),
                    (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, crashes(crash_by_watchdog)),
                    (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, told(loop, self._on_devices)),
                    (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, told(loop, self._on_agent)),
                ):
                    number = connection.domainEventRegisterAny(None, event, callback, None)
                    subscriptions.append(number)
                return connection, subscriptions, connection.getLibVersion()
            except libvirt.libvirtError:
                _close(connection, subscriptions)
                raise

        opening = self._pool.submit(connect)
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                opened = await asyncio.wrap_future(opening)
        except libvirt.libvirtError as error:
            raise LibvirtUnreachable(error.get_error_message() or "connection refused") from error
        except TimeoutError as error:
            opening.add_done_callback(_close_late)
            raise LibvirtUnreachable("libvirt does not take a connection") from error
        self._connection, self._subscriptions, version = opened
        self._version = f"{version // 1_000_000}.{version // 1_000 % 1_000}.{version % 1_000}"
        _log.info("connected to libvirt", version=self._version)
        self._connected.set()
        self.connections += 1
        self.device_calls_begun += 1
        self._settling = asyncio.create_task(self._settle(self._connection), name="libvirt jobs")
        self._on_devices()  # nobody knows what was missed
        self._on_agent()
        self._on_change()

    async def _settle(self, connection: libvirt.virConnect) -> None:
        """Wait for what others have begun to change about domains."""
        try:
            await in_own_thread(partial(wait_for_jobs, connection), name="libvirt jobs")
        except libvirt.libvirtError as error:
            _log.info("libvirt does not tell whether it is done", error=error.get_error_message())
        finally:
            self.device_calls_over += 1
            self._on_change()

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._settling is not None:
                self._settling.cancel()
            self._pool.submit(_close, connection, self._subscriptions)
        self._on_change()


def _close(connection: libvirt.virConnect, subscriptions: Sequence[int]) -> None:
    """Let go of a connection, which may be broken. Without this its callbacks keep it alive for ever."""
    for step in (
        *(partial(connection.domainEventDeregisterAny, each) for each in subscriptions),
        connection.unregisterCloseCallback,
        connection.close,
    ):
        with suppress(libvirt.libvirtError):
            step()


def _close_late(opening: Future[_Opened]) -> None:
    """Let go of a connection that came when nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        connection, subscriptions, _ = opening.result()
        _close(connection, subscriptions)
