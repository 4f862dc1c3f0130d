"""Losses on the episodes of another dataset, where the data name one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import DataError
from trajplan.runs.metrics import read_metrics
from trajplan.training import checkpoint, loop
from trajplan.training.loop import train


@pytest.fixture
def named(dataset, tmp_path, monkeypatch):
    """The dataset, naming another of 7 transitions for its held-out loss."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(7)
    episodes = [
        {
            "observations": rng.normal(size=(length + 1, 3)),
            "actions": rng.uniform(-1, 1, (length, 2)),
            "rewards": rng.normal(size=length),
            "terminations": np.zeros(length, bool),
            "truncations": np.arange(length) == length - 1,
        }
        for length in (5, 2)
    ]
    OfflineDataset.from_episodes(episodes).save("others/walks-val-v0")
    return replace(dataset, info=replace(dataset.info, held_out=("others/walks-val-v0",)))


def test_all_are_trained_on_and_the_named_ones_measured_on(named, tiny, tmp_path):
    train(named, tmp_path / "run", tiny())
    loaded = checkpoint.load_model_folder(tmp_path / "run")
    assert loaded.info.held_out == ("others/walks-val-v0",)
    others = OfflineDataset.from_minari("others/walks-val-v0")
    table = loop.TokenTable(others, loaded.tokenizer, tiny(), torch.device("cpu"))
    windows = others.windows(4)
    batch = table.batch(*windows.gather_rows(torch.arange(len(windows))))
    output = loaded.model(batch.tokens, targets=batch.targets, valid=batch.valid)
    lines = [line for line in read_metrics(tmp_path / "run") if "held_out/loss" in line]
    assert min(line["held_out/loss"] for line in lines) == pytest.approx(output.loss.item(), rel=1e-5)
    # An epoch is as long as without held-out episodes: every window is trained on.
    passes = lines[-1]["update"] * tiny().batch_size / named.num_transitions
    assert lines[-1]["epoch"] == pytest.approx(passes)


def test_a_named_dataset_that_is_gone_or_does_not_fit_is_a_sentence(named, tiny, tmp_path):
    gone = replace(named, info=replace(named.info, held_out=("others/gone-v0",)))
    with pytest.raises(DataError, match="others/gone-v0"):
        train(gone, tmp_path / "run", tiny())
    episode = {name: np.zeros(2) for name in ("rewards", "terminations", "truncations")}
    OfflineDataset.from_episodes([episode | {"observations": np.zeros((3, 5)), "actions": np.zeros((2, 1))}]).save(
        "others/wide-v0"
    )
    wide = replace(named, info=replace(named.info, held_out=("others/wide-v0",)))
    with pytest.raises(DataError, match="their observation spaces"):
        train(wide, tmp_path / "run", tiny())
    assert not (tmp_path / "run").exists()
    train(gone, tmp_path / "run", tiny(held_out=0.0, updates=3))
