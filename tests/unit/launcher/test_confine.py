"""`confine`, compiled and run: what a confined program reaches, and what it does not, is the kernel's answer."""

import subprocess
from pathlib import Path

import pytest

from tests.unit.launcher.native import compiled

NO_LANDLOCK = 3


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("confine")
    program = compiled("confine", directory)
    if subprocess.run([program, directory, "/usr/bin/true"], check=False).returncode == NO_LANDLOCK:
        pytest.skip("this kernel has no Landlock")
    return program


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of files with a secret beside it, and a link that leads there."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_text("content")
    (tmp_path / "secret").write_text("hunter2")
    (tree / "link").symlink_to(tmp_path / "secret")
    return tree


def run(program: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([program, *arguments], check=False, capture_output=True, text=True)


def shell(program: Path, tree: Path, command: str, *options: str) -> bool:
    """Whether a shell that is confined to the tree, where it stands, can do `command`."""
    script = f"cd {tree} && {command}"
    return run(program, *options, tree, "/usr/bin/sh", "-c", script).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "cat file",
        "echo more >> file",
        "mkdir new",
        "mv file sub/file",
        "ln file sub/hard",
        "ln -s file soft",
        "rm file",
        "rmdir sub",
        "mkfifo pipe",
        "truncate -s 1 file",
        "cat /proc/sys/fs/nr_open",
    ],
)
def test_within_the_tree_everything_can_be_done(program: Path, tree: Path, command: str) -> None:
    assert shell(program, tree, command)


@pytest.mark.parametrize(
    "command",
    [
        "cat ../secret",
        "cat link",
        "ls ..",
        "echo x > ../secret",
        "echo x > ../new",
        "mkdir ../new",
        "mv ../secret stolen",
        "mv file ../file",
        "ln ../secret stolen",
        "ln -s x ../new",
        "rm ../secret",
        "mkfifo ../pipe",
        "cat /etc/hostname",
        "cat /proc/1/cmdline",
    ],
)
def test_beyond_it_nothing_can(program: Path, tree: Path, command: str) -> None:
    before = sorted(tree.parent.rglob("*"))
    assert not shell(program, tree, command)
    assert sorted(tree.parent.rglob("*")) == before
    assert (tree.parent / "secret").read_text() == "hunter2"


@pytest.mark.parametrize("command", ["echo x > file", "mkdir new", "rm file", "mv file sub/"])
def test_a_tree_that_is_only_read(program: Path, tree: Path, command: str) -> None:
    assert shell(program, tree, "cat file", "--read-only")
    assert not shell(program, tree, command, "--read-only")


def test_lookups_are_probed_where_they_work(program: Path, tree: Path) -> None:
    """virtiofsd looks names up safely only if it can open its working directory."""
    assert run(program, tree, "/usr/bin/pwd").stdout == "/usr\n"
    assert run(program, tree, "/usr/bin/ls").returncode == 0


def test_what_cannot_be_confined_is_not_run(program: Path, tree: Path) -> None:
    missing = run(program, tree / "missing", "/usr/bin/touch", tree / "touched")
    assert missing.returncode == 1
    assert missing.stderr == f"confine: {tree}/missing: No such file or directory\n"
    assert run(program, tree, tree / "no-program").returncode == 1
    assert run(program, tree).returncode == 2
    assert not (tree / "touched").exists()


def test_a_confined_program_gains_no_privilege(program: Path, tree: Path) -> None:
    status = run(program, tree, "/usr/bin/cat", "/proc/self/status").stdout
    assert "NoNewPrivs:\t1\n" in status
