"""inotify where the kernel gives no more of it: in a user namespace of a process of its own, whose limits are the test's."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.unit.handler.fake_launcher import needs_user_namespaces

_PROBE = textwrap.dedent("""
    import asyncio, os, sys
    from pathlib import Path
    from podvisor_common.inotify import Inotify

    async def told(changed):
        changed.clear()
        async with asyncio.timeout(3):
            await changed.wait()

    async def main(limit, directory):
        limits, changed = [], asyncio.Event()
        with Inotify(limits.append) as inotify:
            descriptor = os.open(directory, os.O_PATH)
            watch = inotify.watch_directory(descriptor, changed.set)
            os.close(descriptor)
            await told(changed)
            await told(changed)
            print("told without a watch")
            Path(f"/proc/sys/user/{limit}").write_text("9")
            await told(changed)
            Path(directory, "new").touch()
            await told(changed)
            print("told by a watch")
            watch.close()
            watch.close()
            await asyncio.sleep(0)
            Path(directory, "newer").touch()
            print("descriptors", len([f for f in os.listdir("/proc/self/fd")]) - before)
        print(limits)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(main(*sys.argv[1:]))
""")

pytestmark = needs_user_namespaces


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_at_its_limit_subscribers_look_for_themselves(limit: str, tmp_path: Path) -> None:
    """They are told that something may have changed until the limit is raised, and then when something has."""
    script = f'echo 0 > /proc/sys/user/{limit}; exec "$@"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, "sh", sys.executable, "-c", _PROBE, limit, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "told without a watch" in lines
    assert "told by a watch" in lines
    assert lines[-1] == f"['user.{limit}']"
