from pathlib import Path

import pytest

from trajplan.runs.metrics import read_metrics
from trajplan.training.loop import train

ASSET = Path(__file__).parents[1] / "assets/losses/walks.txt"


def test_the_seeded_curve_is_the_recorded_one(dataset, tiny, tmp_path):
    """A change that is meant to be neutral keeps this curve (dropout 0; relative tolerance 1e-3 across machines)."""
    config = tiny(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, updates=30, log_every=3)
    train(dataset, tmp_path / "run", config)
    got = [(line["update"], line["loss"]) for line in read_metrics(tmp_path / "run") if line["update"] % 3 == 0]
    rows = [line.split() for line in ASSET.read_text().splitlines() if not line.startswith("#")]
    recorded = [(int(update), float(loss)) for update, loss in rows]
    assert [update for update, _ in got] == [update for update, _ in recorded]
    assert [loss for _, loss in got] == pytest.approx([loss for _, loss in recorded], rel=1e-3)
