"""What takes minutes is marked `long` and runs when asked for: `pytest -m long tests/faults`. What cannot share the cluster with
another test is marked `alone`, as all faults are that concern more than the machine they strike: those which do not are marked
`one_machine`."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: soaks, for minutes; run only by -m long")
    config.addinivalue_line("markers", "alone: measures, or changes what all machines share")
    config.addinivalue_line("markers", "one_machine: a fault of which no other machine notices")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" in config.getoption("-m"):
        return
    soaks = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=soaks)
    items[:] = [item for item in items if item not in soaks]
