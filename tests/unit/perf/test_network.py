"""The network's figures: what iperf3 says, and what is made of it."""

import json

import pytest

from tests.perf.network import Carried, figures, mbit_per_s


def test_rate_is_what_arrived() -> None:
    end = {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 2.5e9}}
    assert mbit_per_s(json.dumps({"end": end})) == 2500.0


def test_failed_run_is_no_rate() -> None:
    words = "unable to connect to server: Connection refused"
    with pytest.raises(ValueError, match="Connection refused"):
        mbit_per_s(json.dumps({"start": {}, "end": {}, "error": words}))


def test_figures_are_told_apart_by_the_other_end() -> None:
    carried = Carried({"from_pod": [1.0, 3.0, 2.0], "to_pod": [4.0]}, [0.1] * 98 + [5.0, 7.0])
    found = {figure.key: figure for figure in figures({"pod": carried, "bridge": carried})}
    assert found["network_from_pod_bridge"].median == 2.0
    assert found["network_rtt_p50_pod"].samples == [0.1]
    assert found["network_rtt_p99_pod"].samples == [7.0]
    assert len(found) == 8
