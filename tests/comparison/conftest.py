import json
import os
import subprocess
import sys

import pytest

from trajplan.comparison.cells import Cell, write_record
from trajplan.comparison.settings import EvaluationConfig


@pytest.fixture
def cell(tmp_path):
    """`cell(label, seed, **changes)`: a cell of a comparison in a temporary folder."""

    def make(label="bc", seed=0, **changes):
        values = {"method": label, "dataset": "toy/hopper/medium-replay-v0", "output": tmp_path / "comparison"}
        values |= {"settings": {}, "evaluation": EvaluationConfig(episodes=4)}
        return Cell(label=label, seed=seed, **values | changes)

    return make


@pytest.fixture
def finished(cell):
    """`finished(label, seed, returns)`: a cell with the files of a finished training and evaluation."""

    def make(label, seed, returns, *, reference=True, metrics=(), settings=None, **changes):
        made = cell(label, seed, evaluation=EvaluationConfig(episodes=len(returns)), **changes)
        made.model.mkdir(parents=True)
        episodes = [
            {"episode": n, "seed": n, "return": value, "length": 10 * (n + 1), "success": None}
            for n, value in enumerate(returns)
        ]
        evaluation = {
            "episodes": episodes,
            "reference": {"min": 0.0, "max": 200.0, "source": "made up"} if reference else None,
            "planner": None,
            "environment": {"id": "Toy-v0"},
            "timing": {"steps_per_second": 50.0},
        }
        files = {
            "evaluation.json": json.dumps(evaluation),
            "config.json": json.dumps({"settings": {"hidden_width": 8} | (settings or {})}),
            "training.json": json.dumps({"updates": 100, "top_fraction": 1.0}),
            "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in metrics),
            "model.safetensors": "",
        }
        for name, text in files.items():
            (made.model / name).write_text(text)
        cost = {"updates": 100, "training_seconds": 61.0, "updates_per_second": 2.5}
        cost |= {"peak_memory_bytes": 3 * 2**20, "gpu_memory_bytes": None, "device": "CPU"}
        record = {"schema_version": 1, "training": made.training_identity(), "evaluation": made.evaluation_identity()}
        write_record(made, record | {"cost": cost, "finished": True})
        return made

    return make


@pytest.fixture
def python():
    """`python(code, *arguments, **environment)`: starts a Python process without torch."""

    def start(code, *arguments, **environment):
        words = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(words, env=os.environ | environment, stdout=subprocess.PIPE, text=True)

    return start
