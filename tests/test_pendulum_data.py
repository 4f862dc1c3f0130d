"""The pendulum script: what it records is what its page says, and the command line knows it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from trajplan import OfflineDataset
from trajplan.presets import preset_for

PATH = Path(__file__).parents[1] / "examples" / "pendulum_data.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pendulum_data", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_twelve_thousand_transitions_of_mixed_quality(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    script.main(["--id", "mine/pendulum-v0"])
    dataset = OfflineDataset.from_minari("mine/pendulum-v0")
    assert (dataset.num_transitions, dataset.num_episodes) == (12_000, 60)
    assert dataset.info.env_spec.id == "Pendulum-v1"
    assert (dataset.info.action_space.low, dataset.info.action_space.high) == (-2, 2)
    quality = [dataset.returns[share::5].mean() for share in range(5)]
    assert np.all(np.diff(quality) < 0)
    assert quality[0] > -250
    assert quality[-1] < -1000
    assert dataset.truncations[dataset.offsets[1:] - 1].all()
    assert not dataset.terminations.any()
    preset = preset_for(dataset.info, gpu=False)
    assert (preset.name, preset.why) == ("tt_small", "12,000 transitions are few")
    # Minutes on two cores: about as many tokens as 5,000 a second need ten minutes for.
    tokens = 6 * preset.train.window * preset.train.epochs * dataset.num_transitions
    assert tokens < 5_000 * 600 * 1.5
    assert "12,000 transitions, mean return -7" in capsys.readouterr().out
