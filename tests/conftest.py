"""What takes minutes is marked `long` and runs when asked for: `pytest -m long tests/faults`. What cannot share the cluster with
another test is marked `alone`, as all faults are that concern more than the machine they strike: those which do not are marked
`one_machine`."""

import pytest

# What takes a worker longest begins first, so that at the end none of them has long to go when the others have done. Seconds, of a busy
# machine; what is not among them takes a minute or less.
_FILES_S = {
    "test_persistent_volumes.py": 480,
    "test_streams.py": 300,
    "test_hotplug.py": 400,
    "test_networks.py": 280,
    "test_run_strategies.py": 250,
    "test_exports.py": 240,
    "test_disk_matrix.py": 160,
    "test_lifecycle.py": 160,
    "test_secondary_networks.py": 150,
    "test_pools.py": 150,
    "test_examples.py": 140,
    "test_replica_sets.py": 120,
    "test_placement.py": 120,
    "test_fsynced_data.py": 100,
    "test_full_disks.py": 100,
    "test_images.py": 90,
    "test_lifecycle_storm.py": 80,
    "test_cdroms.py": 80,
    "test_verbs.py": 70,
    "test_launcher_guest_agent.py": 120,
    "test_guest_agent.py": 80,
    "test_launcher_hardware.py": 70,
    "test_hardware.py": 65,
    "test_overlays.py": 65,
    "test_untouched_sources.py": 65,
    "test_restores.py": 65,
    "test_virtctl.py": 45,
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: soaks, for minutes; run only by -m long")
    config.addinivalue_line("markers", "alone: measures, or changes what all machines share")
    config.addinivalue_line("markers", "one_machine: a fault of which no other machine notices")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: -_FILES_S.get(item.path.name, 0))
    if "long" in config.getoption("-m"):
        return
    soaks = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=soaks)
    items[:] = [item for item in items if item not in soaks]
