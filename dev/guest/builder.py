"""What is built: two guests, a disk with programs for them, and the images that images.json names; nothing when nothing changed.

Invariant: an output is replaced in one step, and the stamp is written last, so an interrupted build
is simply done again.
"""

import argparse
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from . import disk, initramfs, kernel, oci, packages, tools
from .entropy import credit_entropy_program
from .host import BuildError, require, say

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
OUT = CHECKOUT / ".dev" / "guest"
STAMP = OUT / "stamp"
# What the outputs depend on, besides the packages and rootfs/; the self-test's files are not among them.
SOURCES = (
    "builder.py",
    "disk.py",
    "elf.py",
    "images.json",
    "initramfs.py",
    "kernel.py",
    "oci.py",
    "packages.py",
    "tools.py",
)

LIBRARIES = ("libc6", "libcrypt1", "libgmp10", "libtomcrypt1", "libtommath1", "zlib1g")
PROGRAMS = ("busybox-static", "dropbear-bin")

# Of what is compiled as a module in Debian's kernels. Early: what the first prompt needs.
EARLY_MODULES = (
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "isofs", "button", "evdev", "virtio_rng",
)  # fmt: skip
LATE_MODULES = (
    "ahci", "virtio_scsi", "sr_mod", "sd_mod", "virtio_balloon", "virtiofs", "xhci_pci", "usb_storage", "uas",
    "i6300esb", "virtio_input",
)  # fmt: skip
# What those depend on, in one kernel or the other.
DEPENDENCIES = (
    "virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "failover",
    "net_failover", "cdrom", "libahci", "libata", "scsi_mod", "scsi_common", "t10_pi",
    "crc_t10dif", "crct10dif_common", "crct10dif_generic", "crc64", "crc64_rocksoft", "rng_core",
    "fuse", "usbcore", "usb_common", "xhci_hcd", "xhci_pci_renesas", "watchdog",
)  # fmt: skip

# Each saves boot time under emulation: no PnP BIOS, no crypto self-tests, no clock or keyboard
# probing, no kprobe events, no keys for the module signatures that these modules do not have.
FAST_BOOT = (
    "console=tty0 console=ttyS0,115200 quiet noisapnp cryptomgr.notests tsc=reliable"
    " no_timer_check i8042.noaux i8042.nomux i8042.nopnp random.trust_cpu=1 mitigations=off"
    " initcall_blacklist=crypto_kdf108_init,init_kprobe_trace,load_system_certificate_list"
)


@dataclass(frozen=True, slots=True)
class Guest:
    """One bootable guest: its name below .dev/guest and the packages it is made of."""

    name: str
    selection: packages.Selection


I386 = Guest(
    "i386",
    packages.Selection("i386", r"linux-image-6\.1\.0-(\d+)-686-unsigned", PROGRAMS + LIBRARIES),
)
AMD64_BENCH = Guest(
    "amd64-bench",
    packages.Selection(
        "amd64", r"linux-image-6\.1\.0-(\d+)-cloud-amd64-unsigned", PROGRAMS + LIBRARIES
    ),
)
GUESTS = (I386, AMD64_BENCH)


def _kernel_files() -> re.Pattern[str]:
    names = [*EARLY_MODULES, *LATE_MODULES, *DEPENDENCIES]
    either = "|".join(name.replace("_", "[-_]") for name in names)
    return re.compile(rf"boot/vmlinuz-.*|lib/modules/.*/({either})\.ko")


_PROGRAM_FILES = re.compile(
    r"(usr/)?s?bin/(busybox|dropbear)|(usr/)?lib(32|64)?/(.*/)?[^/]*\.so[^/]*"
)


def _find(trees: list[Path], pattern: str) -> Path:
    found = [path for tree in trees for path in tree.glob(pattern)]
    if len(found) != 1:
        raise BuildError(f"expected one {pattern} in the packages, found {len(found)}")
    return found[0]


def make_guest(guest: Guest, debs: list[Path]) -> None:
    """Build `.dev/guest/NAME/disk.raw` and `disk.qcow2` from the downloaded packages."""
    kernel_debs = [deb for deb in debs if deb.name.startswith("linux-image-")]
    kernel_tree = packages.extract(kernel_debs[0], _kernel_files())
    trees = [packages.extract(deb, _PROGRAM_FILES) for deb in debs if deb not in kernel_debs]

    archive = initramfs.Archive()
    archive.character_device("dev/console", 5, 1)
    for name in ("proc", "sys", "usr/bin", "usr/sbin", "etc/dropbear"):
        archive.directory(name)
    for name in ("root", "root/.ssh"):
        archive.directory(name, 0o700)
    archive.file("bin/busybox", _find(trees, "**/busybox").read_bytes(), 0o755)
    archive.link("bin/sh", "busybox")
    dropbear = _find(trees, "**/dropbear").read_bytes()
    archive.file("sbin/credit-entropy", credit_entropy_program(), 0o755)
    initramfs.add_program(archive, "usr/sbin/dropbear", dropbear, trees)
    stages = {"early": EARLY_MODULES, "late": LATE_MODULES}
    initramfs.add_modules(archive, kernel_tree, stages)
    archive.tree(HERE / "rootfs")

    target = OUT / guest.name
    target.mkdir(parents=True, exist_ok=True)
    bzimage = _find([kernel_tree], "boot/vmlinuz-*").read_bytes()
    if guest.selection.architecture == "i386":
        bzimage = kernel.unpack(bzimage)
    initrd = archive.compressed()
    (target / "vmlinuz").write_bytes(bzimage)
    (target / "initrd").write_bytes(initrd)
    disk.make_raw(target / "disk.raw", bzimage, initrd, FAST_BOOT)
    disk.make_qcow2(target / "disk.qcow2", target / "disk.raw")


def _image_files(archive: str, debs: dict[str, list[Path]]) -> list[oci.ImageFile]:
    """What is in the image with this archive name."""
    qcow2 = "/disk/disk.qcow2"
    match archive:
        case "i386" | "amd64-bench":
            return [oci.ImageFile(qcow2, (OUT / archive / "disk.qcow2").read_bytes())]
        case "raw":
            return [oci.ImageFile("/disk/disk.img", (OUT / I386.name / "disk.raw").read_bytes())]
        case "hostile-qcow2":
            path = OUT / "hostile.qcow2"
            disk.make_hostile_qcow2(path)
            return [oci.ImageFile(qcow2, path.read_bytes())]
        case "tools":
            return [oci.ImageFile("/disk/disk.img", tools.archive(debs[archive]))]
        case "kernel":
            parts = ("vmlinuz", "initrd")
            return [oci.ImageFile(f"/boot/{n}", (OUT / I386.name / n).read_bytes()) for n in parts]
        case "no-disk":
            return [oci.ImageFile("/README", b"An image without a disk, for tests.\n")]
        case _:
            raise BuildError(f"images.json names an archive that nobody builds: {archive}")


def make_images(debs: dict[str, list[Path]]) -> list[Path]:
    """Write every archive that images.json lists; `debs` are the downloaded packages by what is made of them."""
    written = []
    for image in json.loads((HERE / "images.json").read_text()):
        path = CHECKOUT / image["archive"]
        files = _image_files(path.name.removesuffix(".oci.tar"), debs)
        oci.write_archive(path, image["names"], files)
        written.append(path)
    return written


def _digest_of_inputs(debs: dict[str, list[Path]]) -> str:
    """Stands for everything the outputs depend on."""
    digest = hashlib.sha256()
    sources = [HERE / name for name in SOURCES]
    sources += sorted(path for path in (HERE / "rootfs").rglob("*") if path.is_file())
    for path in sources:
        digest.update(f"{path.relative_to(HERE)} {path.stat().st_mode & 0o100}\n".encode())
        digest.update(path.read_bytes())
    for name, paths in sorted(debs.items()):
        digest.update(f"{name} {[path.name for path in paths]}\n".encode())
    return digest.hexdigest()


def _outputs() -> list[Path]:
    images = json.loads((HERE / "images.json").read_text())
    disks = [OUT / guest.name / "disk.qcow2" for guest in GUESTS]
    return disks + [CHECKOUT / image["archive"] for image in images]


def build(force: bool) -> None:
    """Bring every output up to date."""
    # git does not keep this mode, and ssh refuses a private key that others may read.
    (CHECKOUT / "dev" / "demo_key").chmod(0o600)
    debs = {guest.name: packages.fetch(guest.selection) for guest in GUESTS}
    debs["tools"] = packages.fetch(tools.SELECTION)
    wanted = _digest_of_inputs(debs)
    fresh = STAMP.exists() and STAMP.read_text() == wanted
    if fresh and not force and all(path.exists() for path in _outputs()):
        return
    require(("dpkg-deb", "mcopy", "mkfs.vfat", "qemu-img", "syslinux"))
    OUT.mkdir(parents=True, exist_ok=True)
    STAMP.unlink(missing_ok=True)
    started = time.monotonic()
    say("building the test guests")
    for guest in GUESTS:
        make_guest(guest, debs[guest.name])
    written = make_images(debs)
    STAMP.write_text(wanted)
    say(f"{len(written)} guest images in {OUT} after {time.monotonic() - started:.1f} s")


def main(arguments: list[str]) -> int:
    """The command line of dev/guest/build."""
    parser = argparse.ArgumentParser(prog="dev/guest/build", description=__doc__)
    parser.add_argument("--force", action="store_true", help="build even if nothing has changed")
    options = parser.parse_args(arguments)
    try:
        build(options.force)
    except BuildError as error:
        print(f"dev/guest/build: {error}")
        return 1
    return 0
