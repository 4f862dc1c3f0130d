import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

import trajplan
from trajplan.baselines.dynamics import prior as behaviour
from trajplan.baselines.dynamics import training
from trajplan.baselines.dynamics.checkpoint import load_ensemble, saved_settings
from trajplan.baselines.engine.checkpoint import load_dynamics
from trajplan.card import card_text
from trajplan.cli import main
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import CheckpointError, ConfigError, DataError
from trajplan.hub import _files
from trajplan.models.scaling import Scaling
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.planners.cem import CEMConfig
from trajplan.planners.mppi import MPPIConfig
from trajplan.planners.settings import AIDS, aid_files, save_planner, saved_planner
from trajplan.runs.metrics import read_metrics
from trajplan.runs.tensors import read_tensors

SMALL = {"model_members": 3, "model_elites": 2, "model_layers": 1, "model_width": 8, "model_batch_size": 8}
SMALL |= {"model_held_out": 0.4, "model_max_epochs": 3, "prior_layers": 1, "prior_steps": 3}
WORDS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
WORDS += ["--device", "cpu"]


@pytest.fixture(scope="module")
def pendulum(short_pendulum):
    """Five short random episodes of Pendulum-v1."""
    return short_pendulum(5)


@pytest.fixture(autouse=True)
def known(monkeypatch, pendulum):
    """The toy dataset is the only one."""
    monkeypatch.setattr(OfflineDataset, "from_minari", classmethod(lambda cls, id: pendulum))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pendulum):
    folder = tmp_path_factory.mktemp("dynamics") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OfflineDataset, "from_minari", classmethod(lambda cls, id: pendulum))
        assert main(["dynamics", "--dataset", "toy/pendulum-v0", "--output", str(folder), *WORDS]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_the_folder_has_the_common_form(trained):
    config = json.loads((trained / "config.json").read_text())
    assert (config["model_type"], config["observation_dim"], config["action_dim"]) == ("trajplan-dynamics", 3, 1)
    assert json.loads((trained / "training.json").read_text())["prior_steps"] == 3
    assert json.loads((trained / "planner.json").read_text())["type"] == "cem"
    report = json.loads((trained / "model_report.json").read_text())
    assert report["training"]["epochs"] == 3
    assert len(report["held_out"]["k_step"]) == 6
    assert (trained / "model_report.png").stat().st_size > 5000
    assert sorted(_files(trained, trained)) == [
        *("config.json", "dataset.json", "model.safetensors", "model_report.json", "model_report.png"),
        *("planner.json", "training.json"),
    ]
    card = (trained / "README.md").read_text()
    assert "A dynamics ensemble (Chua et al. 2018) of the dataset `toy/pendulum-v0`" in card
    assert "by the planner `cem`: sequences of actions" in card
    assert "model_report.png" in card
    assert "- dynamics-model" in card
    assert "| prior_steps | 3 |" in card


def test_metrics_have_a_line_for_every_epoch(trained):
    lines = read_metrics(trained)
    # 18 transitions to train on, 8 in an update.
    assert [line["update"] for line in lines] == [3, 6, 9, 12, 15, 18]
    assert [line.get("model/epoch") for line in lines] == [1, 2, 3, None, None, None]
    assert [line.get("prior/epoch") for line in lines] == [None, None, None, 1, 2, 3]
    assert lines[-1]["prior/elites_held_out_loss"] <= lines[-1]["prior/held_out_loss"] * 1.0001


@pytest.mark.parametrize("stopped_in", [2, 5, 6, 11, 13])
def test_a_run_that_was_stopped_goes_on_exactly(pendulum, trained, tmp_path, monkeypatch, stopped_in, capsys):
    """In the ensemble's first epoch, its second, at its last update, and in the prior's first epochs."""
    folder, count, update = tmp_path / "run", 0, training.EnsembleTrainer.update

    def counting(self, batch):
        nonlocal count
        count += 1
        if count == stopped_in:
            signal.raise_signal(signal.SIGTERM)
        update(self, batch)

    monkeypatch.setattr(training.EnsembleTrainer, "update", counting)
    words = ["--output", str(folder), "--device", "cpu"]
    assert main(["dynamics", "--dataset", "x", *WORDS, *words]) == 130
    assert "Resume with: trajplan dynamics --resume" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_ensemble(folder)
    assert main(["dynamics", "--resume", *words]) == 0
    once, twice = read_tensors(trained / "model.safetensors"), read_tensors(folder / "model.safetensors")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)
    clock = ("seconds", "updates_per_second")
    kept = [[{k: v for k, v in line.items() if k not in clock} for line in read_metrics(f)] for f in (trained, folder)]
    assert kept[0] == kept[1]
    # There is nothing left to do.
    count = -100
    assert main(["dynamics", "--resume", *words]) == 0
    assert count == -100


def test_the_same_call_in_python(pendulum, trained, tmp_path):
    result = trajplan.dynamics(pendulum, tmp_path / "run", progress=False, device="cpu", **SMALL)
    assert (result.updates, result.interrupted) == (18, False)
    once, again = (read_tensors(place / "model.safetensors") for place in (trained, tmp_path / "run"))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_it_loads_as_a_controller_that_plans_as_told(trained):
    for planner in (None, CEMConfig(horizon=3, samples=12), MPPIConfig(horizon=4, samples=9)):
        controller = trajplan.load(trained, device="cpu", planner=planner)
        env = controller.info.make_env()
        observation, _ = env.reset(seed=0)
        controller.reset(seed=0)
        assert env.action_space.contains(controller.act(observation))
        assert controller.plan.rewards.shape[1] == (planner or CEMConfig()).horizon
    assert "Controller: DynamicsEnsemble, " in repr(controller)
    assert "planner      mppi: horizon 4" in repr(controller)


@pytest.mark.parametrize("name", ["random_shooting", "cem", "mppi", "mbop"])
def test_evaluate_runs_every_planner_with_its_settings_pictures_and_pages(folder, name, tmp_path):
    out = tmp_path / "out"
    words = ["--planner", name, "--samples", "20", "--horizon", "4", "--picture", "--viewer", "--output", str(out)]
    assert main(["evaluate", str(folder), "--episodes", "2", "--device", "cpu", *words]) == 0
    report = json.loads((out / "evaluation.json").read_text())
    assert (report["planner"]["type"], report["planner"]["samples"], report["planner"]["horizon"]) == (name, 20, 4)
    assert len(report["episodes"]) == 2
    assert (out / "plan.png").stat().st_size > 5000
    assert (out / "viewer.html").stat().st_size > 5000


def test_a_planner_of_another_model_is_refused_by_name(folder, checkpoint, capsys):
    assert main(["evaluate", str(folder), "--planner", "beam_search"]) == 2
    said = capsys.readouterr().err
    assert "beam_search plans on a Trajectory Transformer, and" in said
    assert "holds a dynamics ensemble, which random_shooting, cem, mppi, mbop plan on" in said
    assert main(["evaluate", str(checkpoint), "--planner", "cem"]) == 2
    assert "cem plans on a dynamics ensemble, and" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"^beam_search plans on"):
        trajplan.load(folder, planner=BeamSearchConfig())
    assert main(["evaluate", str(folder), "--open-loop"]) == 2
    assert "is a dynamics ensemble: --open-loop measures a transformer" in capsys.readouterr().err


def test_mbop_needs_the_prior(pendulum, tmp_path, capsys):
    folder = tmp_path / "run"
    trajplan.dynamics(pendulum, folder, progress=False, device="cpu", prior=False, **SMALL)
    assert not any(name.startswith("prior.") for name in read_tensors(folder / "model.safetensors"))
    assert main(["evaluate", str(folder), "--planner", "mbop"]) == 2
    assert "learned without: train it by trajplan dynamics with --prior" in capsys.readouterr().err


def test_the_ensemble_is_an_aid_of_other_planners(folder, tmp_path):
    """Its folder is read, and copied, as that of a baseline that learned one."""
    dynamics, info = load_ensemble(folder)
    alone = load_dynamics(folder)
    assert info.id == "toy/pendulum-v0"
    assert torch.equal(alone.networks.weights[0], dynamics.networks.weights[0])
    assert aid_files("ensemble", folder)[-1] == "model.safetensors"
    assert aid_files("ensemble", tmp_path) == AIDS["ensemble"]


def test_what_cannot_be_learned_is_refused_before_anything_is_written(pendulum, tmp_path):
    folder = tmp_path / "run"
    episode = {"observations": np.zeros((3, 2)), "actions": np.zeros((2, 1)), "rewards": np.zeros(2)}
    episode |= {"terminations": np.zeros(2, bool), "truncations": np.arange(2) == 1}
    discrete = OfflineDataset.from_episodes([episode] * 2, action_space=spaces.Discrete(2), id="toy/discrete-v0")
    with pytest.raises(ConfigError, match="has Discrete actions, and a dynamics ensemble is for continuous ones"):
        trajplan.dynamics(discrete, folder)
    one = OfflineDataset.from_episodes([episode], action_space=spaces.Box(-1, 1, (1,)), id="toy/one-v0")
    with pytest.raises(DataError, match=r"needs two episodes at least.*there is 1 of 1: give more episodes\.$"):
        trajplan.dynamics(one, folder)
    for bad in ({"model_width": 0}, {"prior_steps": 0}, {"prior_layers": 0}, {"seed": -1}, {"trackers": "paper"}):
        with pytest.raises(ConfigError, match=f"^{next(iter(bad))} is "):
            trajplan.dynamics(pendulum, folder, **bad)
    with pytest.raises(ConfigError, match=r"has no setting 'model_widht'; did you mean model_width\?"):
        trajplan.dynamics(pendulum, folder, model_widht=8)
    assert not folder.exists()


def test_another_run_is_neither_overwritten_nor_resumed_with_other_settings(folder, checkpoint, capsys):
    assert main(["dynamics", "--dataset", "x", "--output", str(folder)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["dynamics", "--resume", "--output", str(folder), "--model-width", "9"]) == 2
    assert "model_width is 9 and was 8" in capsys.readouterr().err
    assert main(["dynamics", "--resume", "--output", str(checkpoint)]) == 2
    assert "holds a model of type" in capsys.readouterr().err


def test_damage_is_named(folder):
    training_settings = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps(training_settings | {"prior_layers": 3}))
    with pytest.raises(CheckpointError, match=r"does not fit its training\.json"):
        trajplan.load(folder)
    (folder / "training.json").write_text(json.dumps({"updates": 3}))
    with pytest.raises(CheckpointError, match="settings that this version cannot read"):
        saved_settings(folder)
    (folder / "planner.json").unlink()
    with pytest.raises(CheckpointError, match=r"it has no planner\.json"):
        trajplan.load(folder)


def test_an_own_planner_is_kept_in_the_card(folder):
    save_planner(folder, MPPIConfig(samples=33))
    assert saved_planner(folder) == MPPIConfig(samples=33)
    assert "by the planner `mppi`" in card_text(folder)
    assert "| samples | 33 |" in card_text(folder)


def test_the_prior_learns_from_the_action_before_and_the_next_rewards(pendulum):
    """The table written out, episode by episode."""
    scaling, chosen = Scaling.of(pendulum.info), np.array([3, 1])
    table = behaviour.table_of(pendulum, chosen, scaling, 4, torch.device("cpu"))
    row = 0
    for episode in chosen:
        first = pendulum.offsets[episode]
        actions = np.asarray(pendulum.actions[first : first + 6]) / 2
        rewards = np.asarray(pendulum.rewards[first : first + 6])
        for step in range(6):
            seen = pendulum.observations[first + episode + step]
            before = actions[step - 1] if step else np.zeros(1)
            np.testing.assert_allclose(table.inputs[row], np.concatenate([seen, before]), rtol=1e-5)
            wanted = [*actions[step], rewards[step : step + 4].sum()]
            np.testing.assert_allclose(table.targets[row], wanted, rtol=1e-4)
            row += 1
    assert row == len(table.inputs)


def test_help_lists_the_settings(capsys):
    with pytest.raises(SystemExit):
        main(["dynamics", "--help"])
    said = capsys.readouterr().out
    assert re.search(r"--prior, --no-prior", said)
    assert "--model-members" in said
    assert "--dataset" in said
