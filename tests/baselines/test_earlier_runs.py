"""A run that an earlier version wrote, before settings and tensors of it got other names, is read and resumed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from trajplan.baselines.engine.checkpoint import load_baseline, load_dynamics, saved_settings
from trajplan.baselines.engine.run_state import fingerprint_of
from trajplan.baselines.engine.scaling import fit_scaling, scaled_dataset
from trajplan.baselines.engine.trainer import train
from trajplan.runs.metrics import read_metrics

# Twelve updates of COMBO on `walks`, stopped after the sixth; rest.jsonl holds the metrics of all twelve.
EARLIER = Path(__file__).parents[1] / "assets/runs/combo"
TIMES = ("seconds", "updates_per_second")


@pytest.fixture
def earlier(tmp_path):
    return Path(shutil.copytree(EARLIER, tmp_path / "run"))


def test_its_settings_and_policy_are_read(earlier, walks):
    assert "target_rate" in (earlier / "config.json").read_text()
    name, config, run = saved_settings(earlier)
    assert (name, config.tau, config.real_ratio, run.updates) == ("combo", 0.005, 0.5, 12)
    policy = load_baseline(earlier)
    np.testing.assert_allclose(policy.scaling.mean, walks.statistics().mean, rtol=1e-5)
    actions = policy.act(np.array(walks.observations[:5]), np.zeros(5), np.arange(5))
    assert walks.info.action_space.contains(actions[0])
    assert np.isfinite(actions).all()


def test_its_dynamics_are_read(earlier, walks):
    dynamics = load_dynamics(earlier)
    states, actions = (np.array(part[:5]) for part in (walks.observations, walks.actions))
    np.testing.assert_allclose(dynamics.input_std[:3], walks.observations.std(0), rtol=0.3)
    assert dynamics.predict(*(torch.from_numpy(part) for part in (states, actions))).mean.isfinite().all()


def test_it_is_resumed_with_the_numbers_of_a_run_that_was_not_stopped(earlier, walks):
    name, config, run = saved_settings(earlier)
    step = earlier / "training_state/step-00000006/state.json"
    about = json.loads(step.read_text())
    # Where the processor rounds otherwise, the standardised dataset is another in its last bits.
    fingerprint = fingerprint_of(scaled_dataset(walks, fit_scaling(walks, True), 1.0, 0.0))
    step.write_text(json.dumps(about | {"fingerprint": fingerprint}))
    train(walks, earlier, name, config, run, evaluate=ten, device="cpu", progress=False, resume=True)
    rest = [json.loads(line) for line in (EARLIER / "rest.jsonl").read_text().splitlines()]
    got = read_metrics(earlier)
    assert [line["update"] for line in got] == [line["update"] for line in rest]
    for one, other in zip(got, rest, strict=True):
        numbers = {key: value for key, value in other.items() if key not in TIMES}
        assert {key: one[key] for key in numbers} == pytest.approx(numbers, rel=1e-3)


def ten(policy):
    return {"return": 10.0}
