from pathlib import Path

import pytest

from trajplan.baselines.engine.trainer import train
from trajplan.baselines.registry import METHODS
from trajplan.runs.metrics import read_metrics

ASSET = Path(__file__).parents[1] / "assets/losses/baselines.txt"
LOSSES = ("actor/loss", "critic/loss", "value/loss")


def recorded(name):
    rows = [line.split() for line in ASSET.read_text().splitlines() if not line.startswith("#")]
    return {(int(update), loss): float(value) for method, update, loss, value in rows if method == name}


@pytest.mark.parametrize("name", METHODS)
def test_a_seeded_runs_losses_are_the_recorded_ones(name, walks, small, quick, tmp_path):
    """A change that is meant to be neutral keeps them (relative tolerance 1e-3 across machines)."""
    train(walks, tmp_path, name, small(name), quick(log_every=6, eval_every=0), device="cpu", progress=False)
    got = {(line["update"], loss): line[loss] for line in read_metrics(tmp_path) for loss in LOSSES if loss in line}
    assert got == pytest.approx(recorded(name), rel=1e-3)
