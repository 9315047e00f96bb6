"""Whether this node can really run guests by KVM.

Invariant: only an instruction that a guest has executed counts. /dev/kvm exists, opens and creates
machines on hosts where no guest ever runs.
"""

import ctypes
import fcntl
import mmap
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

DEVICE = "/dev/kvm"
_PROBE_TIMEOUT_S = 5.0

# linux/kvm.h
_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
_CREATE_VCPU, _SET_TSS_ADDRESS, _RUN = 0xAE41, 0xAE47, 0xAE80
_SET_USER_MEMORY_REGION, _SET_REGS = 0x4020AE46, 0x4090AE82
_GET_SREGS, _SET_SREGS, _SREGS_BYTES = 0x8138AE83, 0x4138AE84, 312
_API_VERSION = 12
_EXIT_HLT = 5
_EXIT_REASON_OFFSET = 8
_HLT = b"\xf4"
_CODE_ADDRESS = 0x1000
_TSS_ADDRESS = 0x7F00_0000  # three pages that older Intel processors need, away from the code


@dataclass(frozen=True, slots=True)
class KvmVerdict:
    """Whether KVM works, and one sentence that says why."""

    works: bool
    message: str


def probe_kvm(device: str = DEVICE, cpuinfo: str = "/proc/cpuinfo") -> KvmVerdict:
    """Runs a guest of one instruction. Blocks for at most a few seconds."""
    if not has_virtualization_flag(Path(cpuinfo).read_text()):
        return KvmVerdict(False, "The processor offers no virtualization extension (vmx or svm).")
    verdict: list[KvmVerdict] = []

    def run() -> None:
        try:
            reason = _run_one_instruction(device)
        except OSError as error:
            verdict.append(KvmVerdict(False, f"{device} does not work: {error.strerror}."))
            return
        if reason == _EXIT_HLT:
            verdict.append(KvmVerdict(True, "A test guest ran an instruction."))
        else:
            verdict.append(KvmVerdict(False, f"A test guest ended with exit reason {reason}."))

    # A broken KVM may never come back from the guest; the thread then stays behind, idle.
    thread = threading.Thread(target=run, name="kvm-probe", daemon=True)
    thread.start()
    thread.join(_PROBE_TIMEOUT_S)
    return verdict[0] if verdict else KvmVerdict(False, "A test guest did not run in time.")


def has_virtualization_flag(cpuinfo: str) -> bool:
    """Whether a /proc/cpuinfo names the extension of Intel or AMD."""
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        if line.startswith("flags"):
            flags.update(line.partition(":")[2].split())
    return bool(flags & {"vmx", "svm"})


def _run_one_instruction(device: str) -> int:
    """Runs `hlt` in real mode and returns KVM's exit reason. Raises OSError."""
    descriptors: list[int] = []
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        descriptors.append(kvm)
        if fcntl.ioctl(kvm, _GET_API_VERSION) != _API_VERSION:
            raise OSError(0, "unknown version of the interface")
        machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
        descriptors.append(machine)
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            memory[:1] = _HLT
            view = ctypes.c_char.from_buffer(memory)
            region = struct.pack(
                "=IIQQQ", 0, 0, _CODE_ADDRESS, mmap.PAGESIZE, ctypes.addressof(view)
            )
            del view
            fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, region)
            fcntl.ioctl(machine, _SET_TSS_ADDRESS, _TSS_ADDRESS)
            processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
            descriptors.append(processor)
            _start_at(processor, _CODE_ADDRESS)
            fcntl.ioctl(processor, _RUN, 0)
            size = fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE)
            with mmap.mmap(processor, size) as shared:
                return int.from_bytes(
                    shared[_EXIT_REASON_OFFSET : _EXIT_REASON_OFFSET + 4], "little"
                )
    finally:
        for descriptor in reversed(descriptors):
            os.close(descriptor)


def _start_at(processor: int, address: int) -> None:
    """Flat code segment, instruction pointer at `address`, flags as after reset."""
    state = bytearray(_SREGS_BYTES)
    fcntl.ioctl(processor, _GET_SREGS, state)
    # kvm_segment cs comes first: base u64, limit u32, selector u16, …
    struct.pack_into("=Q", state, 0, 0)
    struct.pack_into("=H", state, 12, 0)
    fcntl.ioctl(processor, _SET_SREGS, bytes(state))
    registers = [0] * 16 + [address, 2]
    fcntl.ioctl(processor, _SET_REGS, struct.pack("=18Q", *registers))
