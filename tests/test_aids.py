"""A critic and an ensemble, from the command line to the hub and back."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

import trajplan
from trajplan import hub
from trajplan.baselines.dynamics import checkpoint as ensembles
from trajplan.baselines.dynamics.learned_model import WEIGHTS
from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.baselines.dynamics.training import new_ensemble
from trajplan.baselines.engine.checkpoint import save_model, save_settings, weights_of
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS
from trajplan.card import card_text
from trajplan.cli import main
from trajplan.data.info import DatasetInfo
from trajplan.errors import CheckpointError, ConfigError
from trajplan.evaluating import evaluate
from trajplan.files import read_json, write_json
from trajplan.models.networks import Dimensions
from trajplan.models.scaling import Scaling
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.planners.settings import save_planner, saved_planner
from trajplan.runs.tensors import write_tensors

SMALL = {"hidden_width": 8, "hidden_layers": 1}
SETTINGS = BeamSearchConfig(horizon=2, beam_width=3, context=1)


def baseline(folder, info, name="iql", **settings):
    """The folder of an untrained baseline."""
    config = METHODS[name].config_class()(**SMALL, **settings)
    torch.manual_seed(0)
    method = METHODS[name].method_class(info)(Dimensions.of(info), config)
    folder.mkdir(parents=True)
    save_settings(folder, name, config, RunConfig(), info, {"name": "none", "scale": 1.0, "shift": 0.0})
    save_model(folder, weights_of(method, Scaling.of(info)))
    return folder, config


@pytest.fixture
def info(checkpoint):
    return DatasetInfo.from_dict(read_json(checkpoint / "dataset.json"))


@pytest.fixture
def critic(info, tmp_path):
    return baseline(tmp_path / "runs/iql", info)[0]


@pytest.fixture
def ensemble(info, tmp_path):
    small = {"model_members": 3, "model_elites": 2, "model_layers": 1, "model_width": 8}
    folder, config = baseline(tmp_path / "runs/mopo", info, "mopo", **small)
    torch.manual_seed(1)
    write_tensors(folder / WEIGHTS, dict(new_ensemble(info, config, ends=False).state_dict()))
    return folder


def first_actions(policy):
    policy.reset([0, 1], [0, 1])
    return policy.act(np.full((2, 3), 0.5, np.float32), np.zeros(2, np.float32), np.arange(2))


def test_a_planner_is_given_what_its_settings_name(checkpoint, critic, ensemble):
    plain = hub.load_policy(checkpoint, device="cpu")
    assert plain.planner.critic is None
    assert plain.planner.ensemble is None
    config = dataclasses.replace(SETTINGS, critic=str(critic), ensemble=str(ensemble), disagreement_weight=5.0)
    policy = hub.load_policy(checkpoint, device="cpu", planner=config)
    first_actions(plain), first_actions(policy)
    assert policy.planner.critic.has_q
    assert len(policy.planner.ensemble.elites) == 2
    assert policy.last_plans[0].scores[0] != plain.last_plans[0].scores[0]


def test_the_checkpoints_own_planner_has_them_beside_the_model(checkpoint, critic, ensemble, tmp_path):
    (critic / "metrics.jsonl").write_text("not for planning")
    config = dataclasses.replace(SETTINGS, critic=str(critic), ensemble=str(ensemble))
    expected = first_actions(hub.load_policy(checkpoint, device="cpu", planner=config))
    save_planner(checkpoint, config)
    written = json.loads((checkpoint / "planner.json").read_text())
    assert (written["critic"], written["ensemble"]) == ("critic", "ensemble")
    files = {"config.json", "dataset.json", "training.json"}
    assert {path.name for path in (checkpoint / "critic").iterdir()} == files | {"model.safetensors"}
    assert {path.name for path in (checkpoint / "ensemble").iterdir()} == files | {"dynamics.safetensors"}
    # The folder may move, and the runs go away.
    shutil.rmtree(tmp_path / "runs")
    moved = checkpoint.rename(tmp_path / "moved")
    np.testing.assert_array_equal(first_actions(hub.load_policy(moved, device="cpu")), expected)
    # Saved again as it is loaded, nothing changes.
    save_planner(moved, saved_planner(moved))
    assert json.loads((moved / "planner.json").read_text()) == written


def test_an_ensemble_that_was_learned_by_itself_stands_beside_the_model_too(checkpoint, info, tmp_path):
    own = tmp_path / "runs/dynamics"
    own.mkdir(parents=True)
    config = DynamicsConfig(model_members=2, model_elites=2, model_layers=1, model_width=8)
    ensembles.save_settings(own, config, info)
    torch.manual_seed(1)
    ensembles.save_ensemble(own, new_ensemble(info, config, ends=False))
    planner = dataclasses.replace(SETTINGS, ensemble=str(own), disagreement_weight=2.0)
    expected = first_actions(hub.load_policy(checkpoint, device="cpu", planner=planner))
    save_planner(checkpoint, planner)
    files = {"config.json", "dataset.json", "training.json", "model.safetensors"}
    assert {path.name for path in (checkpoint / "ensemble").iterdir()} == files
    shutil.rmtree(own)
    np.testing.assert_array_equal(first_actions(hub.load_policy(checkpoint, device="cpu")), expected)
    shared = {name for name in hub._files(checkpoint, checkpoint) if name.startswith("ensemble/")}
    assert shared == {f"ensemble/{name}" for name in files} <= set(hub.AID_FILES)
    evaluate(checkpoint, episodes=1, max_episode_steps=2, output=tmp_path / "out", device="cpu", progress=False)


def test_another_critic_replaces_the_copy_and_nothing_else(checkpoint, critic, info, tmp_path):
    save_planner(checkpoint, dataclasses.replace(SETTINGS, critic=str(critic)))
    other, _ = baseline(tmp_path / "runs/awac", info, "awac")
    save_planner(checkpoint, dataclasses.replace(SETTINGS, critic=str(other)))
    assert read_json(checkpoint / "critic/config.json")["method"] == "awac"
    (checkpoint / "critic/notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"which holds notes\.txt: move that folder elsewhere\.$"):
        save_planner(checkpoint, dataclasses.replace(SETTINGS, critic=str(critic)))
    assert read_json(checkpoint / "critic/config.json")["method"] == "awac"
    (critic / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"it has no model\.safetensors\.$"):
        save_planner(tmp_path / "new", dataclasses.replace(SETTINGS, critic=str(critic)))
    assert not (tmp_path / "new").exists()


def refused(checkpoint, **settings):
    with pytest.raises((ConfigError, CheckpointError)) as error:
        hub.load_policy(checkpoint, device="cpu", planner=dataclasses.replace(SETTINGS, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_does_not_fit_is_refused_in_a_sentence(checkpoint, critic, info, tmp_path):
    wide = dataclasses.replace(info, id="wide", observation_space=spaces.Box(-1, 1, (4,)))
    folder, _ = baseline(tmp_path / "runs/wide", wide)
    assert refused(checkpoint, critic=str(folder)) == (
        f"{folder} was trained on wide, which does not fit the model: observations are 4 numbers there and 3 numbers "
        "in toy/pendulum-v0."
    )
    strong = dataclasses.replace(info, id="strong", action_space=spaces.Box(-3, 3, (1,)))
    folder, _ = baseline(tmp_path / "runs/strong", strong)
    assert "actions are 1 numbers from -3 to 3 there and 1 numbers from -2 to 2 in" in refused(
        checkpoint, critic=str(folder)
    )
    folder, _ = baseline(tmp_path / "runs/patient", info, discount=0.995)
    assert refused(checkpoint, critic=str(folder)) == (
        f"{folder} was trained with discount 0.995, and the planner's is 0.99: give --discount 0.995, or another "
        "critic."
    )
    assert refused(checkpoint, critic=str(folder), discount=0.99)
    hub.load_policy(checkpoint, device="cpu", planner=dataclasses.replace(SETTINGS, critic=str(folder), discount=0.995))
    assert refused(checkpoint, critic="nowhere") == "There is no checkpoint folder nowhere."
    assert "learns no values" in refused(checkpoint, critic=str(baseline(tmp_path / "runs/bc", info, "bc")[0]))
    assert "holds no trained dynamics model" in refused(checkpoint, ensemble=str(critic))
    assert "holds a model of type" in refused(checkpoint, critic=str(checkpoint))


def test_a_goal_conditioned_critic_values_states_for_the_episodes_goal(checkpoint, info, tmp_path):
    aiming = dataclasses.replace(info, goal_columns=(0, 1))
    folder, config = baseline(tmp_path / "runs/gcivl", aiming, "gcivl")
    assert refused(checkpoint, critic=str(folder), discount=config.discount) == (
        f"{folder} was trained on toy/pendulum-v0, which does not fit the model: goals are columns 0, 1 there and none "
        "in toy/pendulum-v0."
    )
    write_json(checkpoint / "dataset.json", read_json(checkpoint / "dataset.json") | {"goal_columns": [0, 1]})
    settings = dataclasses.replace(SETTINGS, critic=str(folder), score="value", discount=config.discount)
    policy = hub.load_policy(checkpoint, device="cpu", planner=settings)
    goals = np.array([[0.5, 0.2], [-0.5, 0.9]], np.float32)
    policy.reset([0, 0], [0, 1], goals)
    present = (np.full((2, 3), 0.5, np.float32), np.zeros(2, np.float32), np.arange(2))
    policy.act(*present)
    # The same present and noise: only the goal tells their scores apart, which are values of the state at the end.
    assert policy.last_plans[0].scores[0] != policy.last_plans[1].scores[0]
    assert policy.last_plans[1].scores[0] == policy.last_plans[1].returns[0, -1]
    policy.reset([0, 0], [0, 1])
    with pytest.raises(ConfigError, match=r"^The critic values states by a goal, and the environment gives none\.$"):
        policy.act(*present)


def test_a_critic_from_the_command_line_is_recorded_and_kept(checkpoint, critic, capsys):
    words = ["evaluate", str(checkpoint), "--episodes", "1", "--max-episode-steps", "3", "--critic", str(critic)]
    assert main([*words, "--device", "cpu"]) == 0
    report = read_json(checkpoint / "evaluation.json")
    assert report["planner"]["critic"] == str(critic)
    assert len(report["aids"]["critic"]) == 64
    assert "with critic iql, other than the planner settings below" in card_text(checkpoint)
    assert read_json(checkpoint / "planner.json").get("critic") is None
    # With other weights in that folder the evaluation is not continued.
    weights = critic / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert main([*words, "--resume", "--device", "cpu"]) == 2
    assert "it differs in aids;" in capsys.readouterr().err
    weights.write_bytes(before)
    assert main([*words, "--keep-planner", "--device", "cpu"]) == 0
    kept = read_json(checkpoint / "evaluation.json")
    assert kept["planner"]["critic"] == "critic"
    assert kept["aids"] == report["aids"]
    assert [episode["return"] for episode in kept["episodes"]] == [entry["return"] for entry in report["episodes"]]
    assert "other than the planner settings below" not in card_text(checkpoint)
    assert str(critic) not in card_text(checkpoint)
    # From here on it needs no option.
    assert main([*words[:-2], "--device", "cpu"]) == 0
    assert read_json(checkpoint / "evaluation.json")["episodes"] == kept["episodes"]


def test_only_a_checkpoint_folder_keeps_a_planner(checkpoint, critic):
    with pytest.raises(ConfigError, match="keep_planner writes into a checkpoint folder: give its path, not a policy"):
        evaluate(hub.load_policy(checkpoint, device="cpu"), keep_planner=True, episodes=1)
    with pytest.raises(ConfigError, match="makes no plans: leave out keep_planner"):
        evaluate(critic, keep_planner=True, episodes=1)


def test_an_evaluation_from_before_a_setting_came_is_resumed(checkpoint):
    evaluate(checkpoint, episodes=1, max_episode_steps=3, output=checkpoint, device="cpu", progress=False)
    report = read_json(checkpoint / "evaluation.json")
    for name in ("critic", "score", "likelihood_weight"):
        del report["planner"][name]
    write_json(checkpoint / "evaluation.json", report)
    resumed = evaluate(
        checkpoint, episodes=2, max_episode_steps=3, output=checkpoint, resume=True, device="cpu", progress=False
    )
    assert len(resumed.report["episodes"]) == 2


def test_they_are_pushed_and_downloaded_with_the_model(server, checkpoint, critic, ensemble, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", server.token)
    save_planner(checkpoint, dataclasses.replace(SETTINGS, critic=str(critic), ensemble=str(ensemble)))
    (checkpoint / "critic/optimizer.pt").write_text("private")
    _, sent = hub.push(checkpoint, "user/maze")
    beside = {name for name in sent if "/" in name}
    # An ensemble that was learned by itself has its weights under the other name.
    assert beside == set(hub.AID_FILES) - {"ensemble/model.safetensors"}
    expected = first_actions(hub.load_policy(checkpoint, device="cpu"))
    np.testing.assert_array_equal(first_actions(hub.load_policy("user/maze", device="cpu")), expected)
    # Once the planner needs none, the hub's are removed.
    save_planner(checkpoint, SETTINGS)
    hub.push(checkpoint, "user/maze")
    assert not {name for name in server.files("user/maze") if name.startswith(("critic/", "ensemble/"))}
    # A folder elsewhere on this machine is not one that others could load.
    write_json(checkpoint / "planner.json", {"type": "beam_search", "critic": str(critic), "context": 1, "horizon": 2})
    with pytest.raises(CheckpointError, match=r"which is not beside the model: it has to be critic/ there\.$"):
        hub.push(checkpoint, "user/maze")


def test_a_planner_on_an_ensemble_refuses_a_transformer(checkpoint, monkeypatch):
    from trajplan.planners import registry

    entry = dataclasses.replace(registry.PLANNERS["beam_search"], on="dynamics")
    monkeypatch.setitem(registry.PLANNERS, "beam_search", entry)
    with pytest.raises(ConfigError, match="plans on a dynamics ensemble, and"):
        trajplan.load(Path(checkpoint))
