"""The launcher's image in a container as a pod would run it: user 107, no capability, read-only root. No Kubernetes.

Needs a Docker engine (`dev/engine start`), the test guest (`make guest`) and root, which reads the container's sockets.
"""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb
from podvisor.launcher.v1 import launcher_pb2_grpc

ROOT = Path(__file__).parents[2]
GUEST = ROOT / ".dev/guest/i386/disk.qcow2"
IMAGE = "podvisor-launcher:integration"
RUN = "/run/podvisor"
TCP_BANNER = "import socket; print(socket.create_connection(('10.0.2.2', 22), 10).recv(64))"
CAPABILITIES = "cat $XDG_CACHE_HOME/libvirt/qemu/cache/capabilities/*.xml"
_numbers = itertools.count()

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(120),
]


def docker_command(*arguments: str) -> list[str]:
    """A docker command for the development stack's engine."""
    command = f'[ ! -f {ROOT}/.dev/engine.env ] || . {ROOT}/.dev/engine.env; exec docker "$@"'
    return ["bash", "-c", command, "docker", *arguments]


def docker(*arguments: str, check: bool = True, timeout_s: float = 60) -> str:
    """Run docker to its end and return what it printed."""
    done = subprocess.run(
        docker_command(*arguments), check=False, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0 or not check, f"docker {arguments[0]}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@dataclass
class Container:
    """A running launcher."""

    name: str
    sockets: Path
    console: str
    channel: grpc.aio.Channel = field(init=False)

    @property
    def launcher(self) -> "launcher_pb2_grpc.LauncherServiceAsyncStub":
        """The service on its socket."""
        return launcher_pb2_grpc.LauncherServiceStub(self.channel)

    async def until(
        self, state: domain.DomainState.ValueType, within_s: float = 30
    ) -> domain.DomainReport:
        """The first report of `state`, over as many streams as it takes."""
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    watching = self.launcher.WatchDomain(
                        pb.WatchDomainRequest(), wait_for_ready=True
                    )
                    async for response in watching:
                        if response.report.state == state:
                            return response.report

    def processes(self) -> dict[str, int]:
        """Process ids on the host, by the name of the program."""
        names = {
            "supervisor": "supervisor",
            "libvirtd": "libvirtd -f",
            "launcher": "podvisor_launcher",
            "qemu": "qemu-system",
            "virtiofsd": "/usr/libexec/virtiofsd",
        }
        listing = docker("top", self.name, "-eo", "pid,args").splitlines()
        return {
            name: int(line.split()[0])
            for name, pattern in names.items()
            for line in listing
            if pattern in line
        }

    async def console_shows(self, pattern: str, within_s: float = 60) -> str:
        """The output of console-log once `pattern` has appeared in it."""
        text = ""
        process = await asyncio.create_subprocess_exec(
            *docker_command("logs", "--follow", self.console), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                while not re.search(pattern, text):
                    text += (await process.stdout.read(1 << 16)).decode(errors="replace")
        finally:
            process.kill()
            await process.wait()
        return text

    async def serial(self, *exchange: tuple[str, str]) -> str:
        """Talk to the guest's serial console: (what to wait for, what to say). Returns all it said."""
        reader, writer = await asyncio.open_unix_connection(str(self.sockets / "serial0.sock"))
        text = ""
        try:
            async with asyncio.timeout(30):
                writer.write(b"\n")
                for awaited, answer in exchange:
                    seen = ""
                    while not re.search(awaited, seen):
                        seen += (await reader.read(4096)).decode(errors="replace")
                    text += seen
                    writer.write(answer.encode())
        finally:
            writer.close()
        return text

    async def uptime_s(self) -> float:
        """Seconds since the guest booted, by its own clock."""
        said = await self.serial(
            (r"# $|# \x1b", "cat /proc/uptime\n"), (r"\d+\.\d\d \d+\.\d\d", "")
        )
        found = re.findall(r"(\d+\.\d\d) \d+\.\d\d", said)
        return float(found[-1])

    async def exit_code(self, within_s: int = 30) -> int:
        """How the container ended."""
        return int(await asyncio.to_thread(docker, "wait", self.name, timeout_s=within_s))


def spec(*, tap: bool = False) -> domain.DomainSpec:
    """The machine of the introduction."""
    uid = "6f1c8a52-5c3e-4d3b-9d6f-0a1b2c3d4e5f"
    made = domain.DomainSpec(
        namespace="default",
        name="myvm",
        uid=uid,
        firmware_uuid=uid,
        generation=1,
        machine_type="q35",
        accelerator=domain.ACCELERATOR_TCG,
        cpu=domain.CpuSpec(sockets=1, cores=1, threads=1),
        memory=domain.MemorySpec(guest_bytes=64_000_000),
        grace_period_s=30,
        serial_console=True,
        serial_log=True,
    )
    bus, device = domain.DISK_BUS_VIRTIO, domain.DISK_DEVICE_DISK
    made.disks.add(
        name="root", bus=bus, device=device
    ).container_disk.image_root = f"{RUN}/images/root"
    cloud_init = made.disks.add(name="seed", bus=bus, device=device).cloud_init
    cloud_init.instance_id, cloud_init.hostname = "i-1", "myvm"
    cloud_init.user_data = b"#cloud-config\npassword: opensesame\n"
    if tap:
        nic = made.interfaces.add(
            name="default", model="virtio", mac="02:00:00:00:00:01", tap="tap0"
        )
        nic.mtu_bytes, nic.dhcp.bridge, nic.dhcp.prefix_length = 1450, "k6t-eth0", 24
        nic.dhcp.address, nic.dhcp.gateway, nic.dhcp.server = "10.0.2.2", "10.0.2.1", "10.0.2.1"
    return made


@pytest.fixture(scope="module")
def image() -> str:
    """The launcher's image of this checkout; its slow layers are cached by the engine."""
    if not GUEST.exists():
        pytest.skip("no test guest: make guest")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    secret = ["--secret", f"id=ca,src={bundle}"] if bundle.exists() else []
    docker(
        *("buildx", "build", "--load", "--network", "host", *secret),
        *("-f", f"{ROOT}/services/launcher/Dockerfile", "-t", IMAGE, str(ROOT)),
        timeout_s=600,
    )
    return IMAGE


@contextlib.asynccontextmanager
async def running(
    image: str, directory: Path, disk: Path = GUEST, *volumes: str
) -> AsyncIterator[Container]:
    """A launcher's container and its console-log beside it, both removed in the end. `volumes` as docker writes them."""
    name = f"podvisor-test-{os.getpid()}-{next(_numbers)}"
    mounts = {}
    for part in ("sockets", "console"):
        (directory / part).mkdir()
        os.chown(directory / part, 107, 107)
        mounts[part] = f"--volume={directory / part}:{RUN}/{part}"
    confined = (
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--user=107:107",
    )
    tmpfs = [f"--tmpfs={RUN}/{part}:uid=107,gid=107,mode=0700" for part in ("private", "runtime")]
    others = [
        f"--volume={each}" for each in (f"{disk}:{RUN}/images/root/disk/disk.img:ro", *volumes)
    ]
    docker(
        *("run", "--detach", f"--name={name}", *confined, *tmpfs, *mounts.values(), *others),
        *("--sysctl=net.ipv4.ip_unprivileged_port_start=0", image, "--grace-period-s=20"),
    )
    follower = ("--entrypoint=/usr/libexec/podvisor/console-log", mounts["console"], image)
    docker("run", "--detach", f"--name={name}-console", *confined, *follower)
    it = Container(name, directory / "sockets", f"{name}-console")
    async with grpc.aio.insecure_channel(
        f"unix:{directory}/sockets/launcher.sock",
        options=[("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)],
    ) as it.channel:
        try:
            yield it
        finally:
            print(docker("logs", name, check=False))
            docker("rm", "--force", "--volumes", name, f"{name}-console", check=False)


def make_pod_network(container: Container) -> None:
    """What the handler does: bridge and tap in the container's network, the tun device in its /dev."""
    network = (
        "ip link add k6t-eth0 type bridge && ip addr add 10.0.2.1/24 dev k6t-eth0"
        " && ip tuntap add dev tap0 mode tap user 107 && ip link set tap0 master k6t-eth0"
        " && ip link set tap0 up && ip link set k6t-eth0 up"
        " && mkdir -p /proc/1/root/dev/net && mknod -m 666 /proc/1/root/dev/net/tun c 10 200"
    )
    shared = (f"--network=container:{container.name}", f"--pid=container:{container.name}")
    docker(
        "run", "--rm", "--privileged", "--user=0", *shared, "--entrypoint=sh", IMAGE, "-c", network
    )


def assert_confined(pid: int) -> None:
    """The process has no power and shows no secret."""
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    assert re.search(r"^Uid:\t107\t107\t107\t107$", status, re.M)
    assert re.search(r"^CapBnd:\t0+$", status, re.M)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert b"opensesame" not in (process / "cmdline").read_bytes()


async def test_the_guest_outlives_everything_but_itself(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        info = await it.launcher.GetInfo(pb.GetInfoRequest(), wait_for_ready=True, timeout=20)
        assert info.contract_version == 1
        make_pod_network(it)
        await it.launcher.ApplyDomain(pb.ApplyDomainRequest(spec=spec(tap=True)), timeout=5)
        first = await it.until(domain.DOMAIN_STATE_RUNNING)
        assert re.fullmatch(r"pc-q35-\d+\.\d+", first.machine_type)
        assert {disk.name: disk.target for disk in first.disks} == {"root": "vda", "seed": "vdb"}
        assert min(disk.capacity_bytes for disk in first.disks) > 0
        # Had libvirt not believed the image's knowledge of QEMU, it would have replaced it by its own.
        assert "when the image was built" in docker("exec", it.name, "sh", "-c", CAPABILITIES)
        await it.console_shows("myvm login:")

        for pid in it.processes().values():
            assert_confined(pid)
        assert "opensesame" not in docker("logs", it.name)
        leased = await it.until(domain.DOMAIN_STATE_RUNNING)
        assert list(leased.interfaces[0].addresses) == ["10.0.2.2"]
        assert "SSH-2.0" in docker("exec", it.name, "/opt/podvisor/bin/python", "-c", TCP_BANNER)

        await it.serial(("login:", "root\n"), ("Password:", "opensesame\n"), ("# ", ""))
        before, uptime_s = it.processes(), await it.uptime_s()
        for victim in ("launcher", "libvirtd"):
            os.kill(before[victim], signal.SIGKILL)
        second = await it.until(domain.DOMAIN_STATE_RUNNING)
        assert second.epoch != first.epoch
        assert list(second.timeline) == list(first.timeline)
        assert re.search(r"default_myvm\s+running", docker("exec", it.name, "virsh", "list"))
        after = it.processes()
        assert (after["qemu"], after["supervisor"]) == (before["qemu"], before["supervisor"])
        assert await it.uptime_s() > uptime_s

        await it.launcher.ShutdownDomain(pb.ShutdownDomainRequest(grace_period_s=20), timeout=5)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_SHUTDOWN
        assert await it.exit_code() == 0
        assert docker("wait", it.console, timeout_s=5).strip() == "0"
        assert "Power down" in docker("logs", it.console)


async def test_the_end_of_the_container_is_a_clean_shutdown(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.console_shows("myvm login:")
        docker("kill", "--signal=TERM", it.name)
        assert await it.exit_code() == 0
        assert docker("wait", it.console, timeout_s=5).strip() == "0"
        assert "Power down" in docker("logs", it.console)


async def test_the_end_of_qemu_is_a_crash(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        os.kill(it.processes()["qemu"], signal.SIGKILL)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_CRASHED
        assert ended.message == "QEMU was killed by signal 9."
        assert await it.exit_code() == 1


async def test_a_shutdown_that_libvirt_misses_is_no_crash(image: str, tmp_path: Path) -> None:
    """libvirtd ends QEMU after the guest's shutdown, and is killed before it has noted that."""
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        processes = it.processes()
        os.kill(processes["libvirtd"], signal.SIGKILL)
        os.kill(processes["qemu"], signal.SIGTERM)
        assert (await it.until(domain.DOMAIN_STATE_ENDED)).reason == domain.DOMAIN_REASON_SHUTDOWN
        assert await it.exit_code() == 0


async def test_a_guest_that_is_to_start_paused_waits_to_be_resumed(
    image: str, tmp_path: Path
) -> None:
    wanted = spec()
    wanted.start_paused = True
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=wanted), wait_for_ready=True, timeout=20
        )
        paused = await it.until(domain.DOMAIN_STATE_PAUSED)
        assert paused.reason == domain.DOMAIN_REASON_PAUSED_BY_USER
        os.kill(it.processes()["launcher"], signal.SIGKILL)
        again = await it.until(domain.DOMAIN_STATE_PAUSED)
        assert again.reason == domain.DOMAIN_REASON_PAUSED_BY_USER
        docker("exec", it.name, "virsh", "resume", "default_myvm")
        await it.until(domain.DOMAIN_STATE_RUNNING)
        await it.console_shows(r"login:")


async def test_a_guest_that_does_not_listen_is_destroyed(image: str, tmp_path: Path) -> None:
    (tmp_path / "empty.img").write_bytes(bytes(1 << 20))
    async with running(image, tmp_path, tmp_path / "empty.img") as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        await it.launcher.ShutdownDomain(pb.ShutdownDomainRequest(grace_period_s=1), timeout=5)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_GRACE_PERIOD_EXPIRED
        assert await it.exit_code() == 1


async def test_a_container_that_was_never_given_a_machine_ends_cleanly(
    image: str, tmp_path: Path
) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.GetInfo(pb.GetInfoRequest(), wait_for_ready=True, timeout=20)
        docker("kill", "--signal=TERM", it.name)
        assert await it.exit_code() == 0


async def test_the_death_of_the_supervisor_is_the_end_of_all(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        os.kill(it.processes()["supervisor"], signal.SIGKILL)
        assert await it.exit_code(5) == 137
        assert docker("wait", it.console, timeout_s=5).strip() == "0"
