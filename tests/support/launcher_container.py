"""A launcher's image in containers as a pod would run it: user 107, no capability, read-only root. No Kubernetes.

Needs a Docker engine (`dev/engine start`), the test guest (`make guest`) and root, which reads the containers' sockets.
"""

import asyncio
import contextlib
import itertools
import os
import re
import subprocess
import tarfile
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
ROOMY_GUEST = ROOT / ".dev/guest/amd64-bench/disk.qcow2"  # has room for PCI devices that come later
IMAGE = "podvisor-launcher:integration"
RUN = "/run/podvisor"
PROGRAMS = "/usr/libexec/podvisor"
CONFINED = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--user=107:107")
_numbers = itertools.count()


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


async def _logged(container: str, pattern: str, within_s: float) -> str:
    """What a container has printed, once `pattern` is in it."""
    text = ""
    process = await asyncio.create_subprocess_exec(
        *docker_command("logs", "--follow", container),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(within_s):
            while not re.search(pattern, text):
                more = await process.stdout.read(1 << 16)
                assert more, f"{container} ended and never said {pattern!r}:\n{text}"
                text += more.decode(errors="replace")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return text


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
            "swtpm": "/usr/bin/swtpm socket",
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
        return await _logged(self.console, pattern, within_s)

    async def log_shows(self, pattern: str, within_s: float = 10) -> str:
        """The launcher's log once `pattern` has appeared in it."""
        return await _logged(self.name, pattern, within_s)

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

    def holder_exit_code(self) -> int:
        """How the container that held the guest's image ended, which it does within a second of `compute`."""
        return int(docker("wait", f"{self.name}-holder", timeout_s=5))

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


def build_image() -> str:
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


def volumes(directory: Path, *parts: str) -> dict[str, str]:
    """Directories that a pod's containers share, each as an option of docker run."""
    for part in parts:
        (directory / part).mkdir()
        os.chown(directory / part, 107, 107)
    return {part: f"--volume={directory / part}:{RUN}/{part}" for part in parts}


def hold_image(image: str, name: str, directory: Path, console: str) -> tuple[str, ...]:
    """A container of the user's image that holds it, as a pod has where there are no image volumes; options for `compute`."""
    parts = volumes(directory, "tools", "images")
    with tarfile.open(directory / "image.tar", "w") as archive:
        archive.add(GUEST, "disk/disk.img")
    docker("import", str(directory / "image.tar"), name)
    copy = ("--entrypoint=cp", parts["tools"], image, f"{PROGRAMS}/image-holder", f"{RUN}/tools")
    docker("run", "--rm", *CONFINED, *copy)
    sandbox = ("--entrypoint=sleep", image, "infinity")
    docker("run", "--detach", f"--name={name}-sandbox", *CONFINED, *sandbox)
    pid = f"--pid=container:{name}-sandbox"
    mounts = (f"{parts['tools']}:ro", parts["images"], f"{console}:ro", "--workdir=/")
    program = (f"--entrypoint={RUN}/tools/image-holder", name, "root")
    docker("run", "--detach", f"--name={name}-holder", pid, *CONFINED, *mounts, *program)
    return pid, f"{parts['images']}:ro"


def make_pod_network(container: Container, *more_taps: str) -> None:
    """What the handler does: bridge and taps in the container's network, the tun device in its /dev."""
    network = (
        "ip link add k6t-eth0 type bridge && ip addr add 10.0.2.1/24 dev k6t-eth0"
        " && ip link set k6t-eth0 up"
        " && mkdir -p /proc/1/root/dev/net && mknod -m 666 /proc/1/root/dev/net/tun c 10 200"
    )
    for tap in ("tap0", *more_taps):
        network += (
            f" && ip tuntap add dev {tap} mode tap user 107 && ip link set {tap} master k6t-eth0"
            f" && ip link set {tap} up"
        )
    shared = (f"--network=container:{container.name}", f"--pid=container:{container.name}")
    docker(
        "run", "--rm", "--privileged", "--user=0", *shared, "--entrypoint=sh", IMAGE, "-c", network
    )


@contextlib.asynccontextmanager
async def running(
    image: str, directory: Path, disk: Path = GUEST, *others: str, held: bool = False
) -> AsyncIterator[Container]:
    """A launcher's container and its console-log beside it, both removed in the end. `others` are volumes as docker writes them.

    With `held`, the guest's image is that of a third container, and the three share their process ids.
    """
    name = f"podvisor-test-{os.getpid()}-{next(_numbers)}"
    mounts = volumes(directory, "sockets", "console")
    tmpfs = [f"--tmpfs={RUN}/{part}:uid=107,gid=107,mode=0700" for part in ("private", "runtime")]
    disks: tuple[str, ...] = (f"--volume={disk}:{RUN}/images/root/disk/disk.img:ro",)
    if held:
        disks = hold_image(image, name, directory, mounts["console"])
    binds = [f"--volume={each}" for each in others]
    docker(
        *("run", "--detach", f"--name={name}", *CONFINED, *tmpfs, *mounts.values(), *disks, *binds),
        *("--sysctl=net.ipv4.ip_unprivileged_port_start=0", image, "--grace-period-s=20"),
    )
    follower = (f"--entrypoint={PROGRAMS}/console-log", mounts["console"], image)
    docker("run", "--detach", f"--name={name}-console", *CONFINED, *follower)
    it = Container(name, directory / "sockets", f"{name}-console")
    async with grpc.aio.insecure_channel(
        f"unix:{directory}/sockets/launcher.sock",
        options=[("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)],
    ) as it.channel:
        try:
            yield it
        finally:
            print(docker("logs", name, check=False))
            beside = [f"{name}-{part}" for part in ("console", "holder", "sandbox")]
            docker("rm", "--force", "--volumes", name, *beside, check=False)
            docker("rmi", "--force", name, check=False)


def assert_confined(pid: int) -> None:
    """The process has no power and shows no secret."""
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    assert re.search(r"^Uid:\t107\t107\t107\t107$", status, re.M)
    assert re.search(r"^CapBnd:\t0+$", status, re.M)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert b"opensesame" not in (process / "cmdline").read_bytes()
