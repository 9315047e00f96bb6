"""The launcher put together: socket, libvirt, machine, DHCP, log bound, and the order in which they end."""

import asyncio
import contextlib
import secrets
import signal

import structlog
from podvisor.domain.v1 import domain_pb2
from podvisor_common.aio.tasks import spawn
from podvisor_common.rpc.server import serve_unix

from podvisor_launcher.dhcp.responder import Responder
from podvisor_launcher.domain.build import EMULATOR
from podvisor_launcher.lifecycle.credentials import Credentials
from podvisor_launcher.lifecycle.freezing import Freezing
from podvisor_launcher.lifecycle.guest_probes import GuestProbes
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.lifecycle.machine import Machine
from podvisor_launcher.lifecycle.reports import Reports
from podvisor_launcher.rpc.guest_agent import GuestAgentCalls
from podvisor_launcher.rpc.probes import serve_probes
from podvisor_launcher.rpc.servicer import launcher_service
from podvisor_launcher.rpc.volumes import serve_volumes
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.serial_log import bound_serial_log
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import LibvirtFailed, LibvirtUnreachable

_log = structlog.stdlib.get_logger(__name__)

_END_DELIVERED_WITHIN_S = 2.0
_STREAMS_END_WITHIN_S = 0.5


async def run(settings: Settings) -> int:
    """Serve until the guest has ended and somebody knows, or two seconds more. Returns the process's exit code."""
    reports = Reports(epoch=secrets.randbits(63))
    machine: Machine
    responder = Responder(lambda interface, address: machine.leased(interface, address))
    machine = Machine(settings, reports, lambda spec: serve(spec))
    questions = GuestQuestions(machine.agent, machine.libvirt)
    freezing = Freezing(settings.freeze, machine.agent, questions)
    probes = GuestProbes(machine.agent, questions, freezing, machine.power)
    credentials = Credentials(settings.guest_keys, machine.agent, questions)

    def serve(spec: domain_pb2.DomainSpec) -> None:
        responder.serve(spec)
        credentials.serve(spec)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, machine.container_stopping)
    loop.add_signal_handler(signal.SIGCHLD, machine.look_again)  # the supervisor reaped a QEMU
    async with asyncio.TaskGroup() as group:
        background = [
            spawn(group, machine.libvirt.run(), name="libvirt"),
            spawn(group, machine.agent.run(machine.libvirt), name="guest agent"),
            spawn(group, freezing.run(), name="freezing"),
            spawn(group, credentials.run(), name="access credentials"),
            spawn(
                group,
                serve_probes(settings.probe_socket, probes),
                name="probes",
            ),
            spawn(group, responder.run(), name="dhcp"),
            spawn(group, bound_serial_log(settings.serial_log), name="serial log"),
            spawn(group, _warm_up(machine.libvirt), name="warm-up"),
            spawn(
                group, serve_volumes(settings.volumes_socket, machine.take_volume), name="volumes"
            ),
        ]
        async with serve_unix(
            settings.unpublished_socket,
            [launcher_service(machine, reports, GuestAgentCalls(questions, freezing))],
            publish_as=settings.socket,
            grace_s=_STREAMS_END_WITHIN_S,
        ):
            _log.info("serving", epoch=reports.epoch)
            exit_code = await machine.run()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_DELIVERED_WITHIN_S):
                    await reports.end_delivered.wait()
            await reports.close()
        for task in background:
            task.cancel()
    return exit_code


async def _warm_up(libvirt: LibvirtConnection) -> None:
    try:
        await libvirt.warm_up(EMULATOR)
    except (LibvirtUnreachable, LibvirtFailed) as error:
        _log.info("libvirt could not be warmed up", error=str(error))
