"""What a launcher carries: every module costs each VM memory and start time."""

import subprocess
import sys

import pytest

FORBIDDEN = {
    "aiohttp",
    "kubernetes_asyncio",
    "msgspec",
    "pydantic",
    "cryptography",
    "prometheus_client",
    "pycdlib",
    "yaml",
}
PROGRAM = "import sys, podvisor_launcher.app; print('\\n'.join(sys.modules))"


@pytest.fixture(scope="module")
def modules() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_nothing_is_imported_that_the_launcher_does_not_need(modules: set[str]) -> None:
    assert {name.partition(".")[0] for name in modules} & FORBIDDEN == set()


def test_the_number_of_modules_is_bounded(modules: set[str]) -> None:
    assert len(modules) < 510


def test_grpc_and_asyncio_find_the_process_prepared() -> None:
    program = (
        "import sys, os, podvisor_launcher.__main__ as m; "
        "print(os.environ['GRPC_ENABLE_FORK_SUPPORT'], 'grpc' in sys.modules, '_ssl' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["0", "True", "False"]
