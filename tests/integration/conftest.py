"""What the tests with containers share."""

import pytest

from tests.support.launcher_container import build_image


@pytest.fixture(scope="session")
def image() -> str:
    """The launcher's image of this checkout."""
    return build_image()
