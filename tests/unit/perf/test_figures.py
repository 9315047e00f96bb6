"""What the benchmarks make of what they measured: texts, tables, plots. No cluster."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.perf import bench, measure, usage
from tests.perf.measure import Figure
from tests.perf.plot import Row, chart
from tests.perf.scale.report import queue_percentile_s, summed
from tests.perf.specification import with_figures

RUNNING = Figure("running", "create → Running", "s", [1.2, 1.0, 2.0], budget=1.1, upstream=3.9)


def test_a_figure_survives_being_stored() -> None:
    stored = json.loads(json.dumps(RUNNING.as_json()))
    assert (stored["min"], stored["median"], stored["max"]) == (1.0, 1.2, 2.0)
    assert Figure.from_json("running", stored) == RUNNING


def test_a_run_is_compared_with_the_one_before(tmp_path: Path) -> None:
    first = bench.Part({}).successor([RUNNING])
    second = first.successor([Figure("running", "create → Running", "s", [0.5], budget=1.1)])
    bench.save(tmp_path, {"start": second})
    stored = bench.load(tmp_path / "latest.json")["start"]
    assert (stored.figures["running"].median, stored.before) == (0.5, {"running": 1.2})
    for plot in tmp_path.glob("*.svg"):
        ElementTree.parse(plot)
    assert "create → Running" in (tmp_path / "budgets.svg").read_text()


def test_a_missed_budget_is_seen_in_table_and_plot() -> None:
    parts = {"start": bench.Part({"running": RUNNING})}
    assert bench.table(parts).rstrip().endswith("!")
    good, bad = (chart("t", "s", [Row("r", 1, m, 3, "x", budget=2)]) for m in (1, 3))
    assert good.count("#c0392b") < bad.count("#c0392b")


def test_a_plot_of_nothing_and_of_zeros_is_a_plot() -> None:
    for rows in ([], [Row("nothing", 0, 0, 0, "0")]):
        ElementTree.fromstring(chart("t", "s", rows))


def test_the_specification_shows_the_last_figures() -> None:
    text = "| a | ≤ 1.1 s | `start/running` old words |\n| b | `start/other` |\n"
    known = {("start", "running"): RUNNING}
    once = with_figures(text, lambda part, key: known.get((part, key)))
    assert once == (
        "| a | ≤ 1.1 s | `start/running` **1.20 s** (1.00–2.00) |\n| b | `start/other` not measured |\n"
    )
    assert with_figures(once, lambda part, key: known.get((part, key))) == once


def test_processes_are_read_from_the_nodes_listing() -> None:
    rollup = "55d0-7ffe ---p 0 00:00 0 [rollup]\nRss: 2048 kB\nPss: 1024 kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: 512 kB\n"
    stat = f"7 (py (x)) S {' '.join(['0'] * 10)} 100 50 25 25 0\n"
    text = (
        f"=== 7 python -m podvisor_launcher \n{stat}{rollup}"
        f"=== 8 /usr/bin/qemu-system-x86_64 -name x \n{stat}{rollup}"
        f"=== 9 \n"
    )
    launcher, qemu = usage.parse(text)
    assert (launcher.program, launcher.rss, launcher.pss) == ("launcher", 2.0, 1.0)
    assert launcher.cpu_s == pytest.approx(200 / measure._TICKS_PER_S)
    assert usage.beside_qemu([launcher, qemu]) == 1.0


def test_percentiles() -> None:
    assert measure.percentile([], 0.5) == 0
    assert measure.percentile([3, 1, 2], 0.5) == 2
    buckets = {
        'le="0.1",name="vmi"': 5.0,
        'le="1.0",name="vmi"': 9.0,
        'le="+Inf",name="vmi"': 10.0,
        'le="+Inf",name="vm"': 99.0,
    }
    metrics = {"workqueue_queue_duration_seconds_bucket": buckets}
    assert queue_percentile_s(metrics, "vmi", 0.5) == 0.1
    assert queue_percentile_s(metrics, "vmi", 0.9) == 1.0
    assert queue_percentile_s(metrics, "vmi", 1.0) == 1.0
    later = summed([metrics, metrics], minus=[metrics])
    assert later == metrics
