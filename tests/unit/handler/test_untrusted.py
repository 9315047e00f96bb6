"""Walks through trees that somebody else may change at any moment."""

import os
import socket
from pathlib import Path

import pytest
from podvisor_handler.linux.untrusted import (
    UntrustedPathMissing,
    UntrustedPathRefused,
    untrusted_character_device,
    untrusted_directory,
    untrusted_make_directory,
    untrusted_open_socket,
    untrusted_read,
)


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/file").write_text("content")
    assert untrusted_read(str(tmp_path), "etc/file", limit_bytes=4) == b"cont"


@pytest.mark.parametrize("link", ["etc", "etc/file"])
def test_no_component_may_be_a_symlink(tmp_path: Path, link: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("root's")
    tree = tmp_path / "tree"
    tree.mkdir()
    if link == "etc":
        (tree / "etc").symlink_to(secret)
    else:
        (tree / "etc").mkdir()
        (tree / "etc/file").symlink_to(secret / "file")
    with pytest.raises(UntrustedPathRefused):
        untrusted_read(str(tree), "etc/file", limit_bytes=100)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret"])
def test_a_path_never_leaves_its_root(tmp_path: Path, path: str) -> None:
    with (
        pytest.raises(ValueError, match="below its root"),
        untrusted_directory(str(tmp_path), path),
    ):
        pass


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(UntrustedPathRefused):
        untrusted_read(str(tmp_path), "file", limit_bytes=100)


def test_missing_and_wrong_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UntrustedPathMissing):
        untrusted_open_socket(str(tmp_path), "a/b")
    (tmp_path / "file").write_text("")
    with pytest.raises(UntrustedPathRefused):
        untrusted_open_socket(str(tmp_path), "file")


def test_a_socket_is_opened(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        descriptor = untrusted_open_socket(str(tmp_path), "s")
        assert os.fstat(descriptor).st_ino == (tmp_path / "s").stat().st_ino
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")
def test_a_device_is_made_once_and_keeps_its_mode(tmp_path: Path) -> None:
    null = os.makedev(1, 3)
    for _ in range(2):
        untrusted_make_directory(str(tmp_path), "net", mode=0o755)
        os.close(
            untrusted_character_device(
                str(tmp_path), "net/tun", device=null, mode=0o666, create=True
            )
        )
        found = (tmp_path / "net/tun").stat()
        assert (found.st_rdev, found.st_mode & 0o777) == (null, 0o666)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")
def test_another_device_of_the_name_is_refused(tmp_path: Path) -> None:
    os.mknod(tmp_path / "tun", 0o20600, os.makedev(1, 5))
    with pytest.raises(UntrustedPathRefused):
        untrusted_character_device(
            str(tmp_path), "tun", device=os.makedev(1, 3), mode=0o666, create=True
        )
    assert (tmp_path / "tun").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UntrustedPathMissing):
        untrusted_character_device(str(tmp_path), "kvm", device=0, mode=0o666, create=False)
