"""What libvirt takes for passt, compiled and run with another program in passt's place."""

import platform
import subprocess
from pathlib import Path

import pytest

from tests.unit.launcher.native import compiled

NO_LANDLOCK = 3
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="its filter is of x86-64")

# It has the arguments after `--`, and says what came of what passt does at its start.
PROGRAM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    printf("unshare %d\n", unshare(CLONE_NEWUSER | CLONE_NEWNS));
    printf("mount %d\n", mount("", "/", "", MS_UNBINDABLE | MS_REC, NULL));
    printf("pivot_root %ld\n", syscall(SYS_pivot_root, ".", "."));
    printf("umount2 %d\n", umount2(".", MNT_DETACH));
    for (int i = 1; i < argc - 1; i++)
        if (strcmp(argv[i], "--write") == 0 || strcmp(argv[i], "--read") == 0) {
            int fd = open(argv[i + 1], argv[i][2] == 'w' ? O_WRONLY | O_CREAT : O_RDONLY, 0600);
            printf("%s %s\n", argv[i + 1], fd == -1 ? strerror(errno) : "yes");
        }
    printf("last %s\n", argv[argc - 1]);
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("passt")
    source, probe = directory / "probe.c", directory / "probe"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-static", "-o", str(probe), str(source)], check=True)
    program = compiled("passt", directory, PASST=probe, PROGRAMS=directory)
    if subprocess.run([program], check=False, capture_output=True).returncode == NO_LANDLOCK:
        pytest.skip("this kernel has no Landlock")
    return program


def said_by(program: Path, *arguments: str | Path) -> dict[str, str]:
    done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_namespaces_are_pretended(program: Path) -> None:
    """Without a privilege these calls are refused; with one they would move the caller."""
    said = said_by(program)
    assert [said[call] for call in ("unshare", "mount", "pivot_root", "umount2")] == ["0"] * 4
    assert said["last"] == "--no-map-gw"


def test_it_writes_where_its_socket_is_and_nowhere_else(program: Path, tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    files = (own / "new", other / "new")
    said = said_by(program, "--socket", own / "socket", "--write", files[0], "--write", files[1])
    assert said[str(own / "new")] == "yes"
    assert (own / "new").exists()
    assert not (other / "new").exists()


def test_it_reads_what_it_needs_and_no_more(program: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    said = said_by(
        program,
        "--read",
        "/etc/resolv.conf",
        "--read",
        "/proc/sys/net/ipv4/ip_local_port_range",
        "--read",
        tmp_path / "secret",
    )
    assert said["/etc/resolv.conf"] == said["/proc/sys/net/ipv4/ip_local_port_range"] == "yes"
    assert said.get(str(tmp_path / "secret")) != "yes"
