"""The measurement of seeds trained together, at sizes that take no time."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("seeds_together", "train_speed", "record"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("seeds_together")


def test_it_measures_both_ways_and_counts_fewer_operations_together(benchmark, monkeypatch, tmp_path, one_thread):
    written = {}
    small = benchmark.synthetic(2, 1, episodes=2, length=5)
    monkeypatch.setattr(benchmark, "synthetic", lambda *sizes: small)
    monkeypatch.setattr(benchmark, "write", lambda path, values: written.update(values))
    words = ["--methods", "iql", "awr", "--updates", "2", "--turns", "2", "--seeds", "3", "--batch-size", "4"]
    monkeypatch.setattr(sys, "argv", ["seeds_together.py", *words, "--device", "cpu", "--output", str(tmp_path)])
    benchmark.main()
    assert json.loads(json.dumps(written))["clock"] == "process time"
    for values in written["methods"].values():
        assert len(values["updates_per_second_together"]) == len(values["updates_per_second_in_a_row"]) == 2
        # Those of one seed, and few more.
        assert values["operations_in_a_row"] / 3 <= values["operations_together"] < values["operations_in_a_row"] / 2
