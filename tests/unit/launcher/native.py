"""The static programs of the launcher's image, compiled for a directory of the test."""

import subprocess
import time
from pathlib import Path

SOURCES = Path(__file__).parents[3] / "services/launcher/native"


def compiled(program: str, directory: Path, **macros: Path) -> Path:
    """The program with its paths moved into the test's directory."""
    defines = [f'-D{name}="{value}"' for name, value in macros.items()]
    target = directory / program
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    source = str(SOURCES / f"{program}.c")
    subprocess.run(["gcc", *flags, *defines, "-o", str(target), source], check=True)
    return target


def eventually(holds: object, within_s: float = 10.0) -> None:
    """Look every few milliseconds until `holds()`: these programs have nothing to wait on."""
    deadline = time.monotonic() + within_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
