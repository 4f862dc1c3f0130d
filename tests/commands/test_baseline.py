import dataclasses
import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import ogbench  # noqa: F401, registers its environments
import pytest
from gymnasium.envs.registration import EnvSpec

import trajplan
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.presets import CHANGES, KINDS, kind_of, note_for, preset_for
from trajplan.baselines.registry import METHODS
from trajplan.card import card_text
from trajplan.cli import main
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.data.kinds import LOCOMOTION, LOCOMOTION_DATA
from trajplan.errors import CheckpointError, ConfigError
from trajplan.hub import _files, load_policy
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.runs.metrics import read_metrics

SHORT = ["--updates", "4", "--batch-size", "4", "--hidden-width", "8", "--hidden-layers", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def pendulum(short_pendulum):
    """Three short random episodes of Pendulum-v1."""
    return short_pendulum(3)


@pytest.fixture(autouse=True)
def known(monkeypatch, pendulum):
    """The toy dataset is the only one."""
    monkeypatch.setattr(OfflineDataset, "from_minari", classmethod(lambda cls, id: pendulum))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pendulum):
    folder = tmp_path_factory.mktemp("baseline") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OfflineDataset, "from_minari", classmethod(lambda cls, id: pendulum))
        arguments = [
            "--dataset",
            "toy/pendulum-v0",
            "--output",
            str(folder),
            "--eval-episodes",
            "2",
            "--expectile",
            "0.8",
        ]
        assert main(["baseline", "iql", *arguments, *SHORT]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_training_evaluates_and_writes_a_whole_folder(trained):
    (line,) = read_metrics(trained)
    assert line["update"] == 4
    assert line["evaluation/length"] == 6
    assert -120 < line["evaluation/return"] < 0
    # Both episodes are cut off after 6 steps.
    assert line["evaluation/return"] < line["evaluation/discounted_return"] < 0
    assert line["evaluation/cut_weight"] == pytest.approx(0.99**6)
    assert abs(line["evaluation/predicted_value"]) < 10
    assert (trained / "values.png").stat().st_size > 5000
    assert json.loads((trained / "config.json").read_text())["settings"]["expectile"] == 0.8
    assert json.loads((trained / "training.json").read_text())["eval_episodes"] == 2
    assert sorted([*_files(trained, trained), "README.md"]) == sorted(
        ["README.md", "config.json", "dataset.json", "model.safetensors", "training.json", "values.png"]
    )


def test_reported_returns_are_the_environments_whatever_training_sees_of_rewards(pendulum, tmp_path):
    folder = tmp_path / "run"
    arguments = ["--dataset", "x", "--output", str(folder), "--eval-episodes", "1", *SHORT]
    assert main(["baseline", "iql", *arguments, "--reward-transform", "times-ten-minus-five"]) == 0
    (line,) = read_metrics(folder)
    controller, env = trajplan.load(folder, device="cpu"), pendulum.info.make_env()
    observation, _ = env.reset(seed=0)
    controller.reset(seed=0)
    rewards = []
    for _ in range(6):
        observation, reward, *_ = env.step(controller.act(observation, rewards[-1] if rewards else None))
        rewards.append(reward)
    assert line["evaluation/return"] == pytest.approx(sum(rewards), rel=1e-6)
    seen = sum(0.99**step * (10 * reward - 5) for step, reward in enumerate(rewards))
    assert line["evaluation/discounted_return"] == pytest.approx(seen, rel=1e-5)


def test_the_folder_loads_as_a_controller(trained):
    controller = trajplan.load(trained, device="cpu")
    env = controller.info.make_env()
    observation, _ = env.reset(seed=0)
    controller.reset(seed=0)
    action = controller.act(observation)
    assert env.action_space.contains(action)
    assert controller.plan is None
    expected = load_policy(trained, device="cpu").act(observation[None], np.zeros(1), np.zeros(1))[0]
    assert np.array_equal(action, expected)
    with pytest.raises(ConfigError, match="does not plan"):
        trajplan.load(trained, planner=BeamSearchConfig())


def test_an_incomplete_folder_is_named(folder):
    (folder / "dataset.json").unlink()
    with pytest.raises(CheckpointError, match=r"it has no dataset\.json"):
        trajplan.load(folder)


def test_evaluate_runs_a_baseline_and_refuses_planner_flags(folder, capsys):
    assert main(["evaluate", str(folder), "--episodes", "2", "--device", "cpu"]) == 0
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["planner"] is None
    assert len(report["episodes"]) == 2
    assert "evaluation.json" in _files(folder, folder)
    assert "| return |" in (folder / "README.md").read_text()
    assert main(["evaluate", str(folder), "--horizon", "3", "--picture"]) == 2
    assert "is a baseline, which does not plan: leave out --horizon, --picture." in capsys.readouterr().err


def test_the_model_card_tells_method_and_settings(trained):
    text = card_text(trained)
    assert "Implicit Q-learning trained on the dataset `toy/pendulum-v0`. It acts in `Pendulum-v1`." in text
    assert "| expectile | 0.8 |" in text
    assert "beam" not in text
    assert "trajectory-transformer" not in text


def test_resume_takes_the_runs_settings_and_refuses_others(folder, capsys):
    weights = (folder / "model.safetensors").read_bytes()
    assert main(["baseline", "iql", "--resume", "--output", str(folder), "--device", "cpu"]) == 0
    assert (folder / "model.safetensors").read_bytes() == weights
    assert main(["baseline", "iql", "--resume", "--output", str(folder), "--expectile", "0.6"]) == 2
    assert "expectile is 0.6 and was 0.8" in capsys.readouterr().err
    assert main(["baseline", "bc", "--resume", "--output", str(folder)]) == 2
    assert "holds a run of iql, which cannot be resumed as bc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["iql", "--output", "OUT"], "Name a dataset with --dataset ID"),
        (["iql", "--dataset", "x", "--output", "OUT", "--expectile", "1.5"], "expectile is 1.5; it must lie"),
        (["bc", "--dataset", "x", "--output", "OUT", "--top-fraction", "0"], "top_fraction is 0.0; it must lie"),
        (["iql", "--dataset", "x", "--output", "OUT", "--seed", "-1"], "seed is -1; it must be 0 or more"),
        (["iql", "--dataset", "x", "--output", "OUT", "--device", "graphics"], "There is no device 'graphics' here"),
    ],
)
def test_bad_input_is_refused_before_training(arguments, message, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(["baseline", *(str(output) if word == "OUT" else word for word in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("below", ["", "sub"])
def test_an_output_that_is_a_file_is_refused(below, folder, tmp_path, capsys):
    file = tmp_path / "afile"
    file.write_text("mine")
    for command in (["baseline", "bc", "--dataset", "x", "--eval-every", "0", *SHORT], ["evaluate", str(folder)]):
        assert main([*command, "--output", str(file / below)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"trajplan: error: {file / below} cannot be made: ")
        assert error.endswith("; choose another --output.\n")
    assert file.read_text() == "mine"


def test_unknown_methods_and_options_are_named(capsys):
    for arguments, message in (
        (["ppo"], "Unknown method 'ppo'; there are bc, gcbc, gcivl, qrl, iql, "),
        (["bc", "--output", "x", "--expectile", "1"], "trajplan baseline bc has no option --expectile; see "),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["baseline", *arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_a_dataset_without_an_environment_needs_training_without_evaluation(pendulum, monkeypatch, tmp_path, capsys):
    bare = dataclasses.replace(pendulum, info=dataclasses.replace(pendulum.info, env_spec=None))
    monkeypatch.setattr(OfflineDataset, "from_minari", classmethod(lambda cls, id: bare))
    arguments = ["baseline", "bc", "--dataset", "x", "--output", str(tmp_path / "run"), *SHORT]
    assert main(arguments) == 2
    assert "give --eval-every 0" in capsys.readouterr().err
    assert main([*arguments, "--eval-every", "0"]) == 0


def test_a_switch_takes_no_value(tmp_path, capsys):
    # "False" as a string would be true.
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "baseline",
                "bc",
                "--dataset",
                "toy/pendulum-v0",
                "--output",
                str(tmp_path / "run"),
                "--standardize",
                "False",
            ]
        )
    assert stopped.value.code == 2
    assert "False" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_presets_by_environment(pendulum):
    def named(id: str) -> DatasetInfo:
        return dataclasses.replace(pendulum.info, id=id, env_spec=None)

    settings, run = preset_for("iql", named("D4RL/antmaze-umaze-v2"))
    assert (settings.expectile, settings.beta, run.reward_transform) == (0.9, 10, "minus-one")
    for name in ("bc", "awac"):
        assert preset_for(name, named("mujoco/hopper/medium-v0"))[1].reward_transform == "none"
    settings, run = preset_for("cql", named("D4RL/antmaze-umaze-v2"))
    assert (settings.alpha, settings.target_actions, settings.min_penalty) == (5, 10, -200)
    assert (len(settings.critic_hidden), len(settings.hidden)) == (5, 3)
    # The sum of 30 candidates is log(30) above their mean.
    assert settings.target_gap == pytest.approx(0.8 - 3.4012, abs=1e-4)
    assert (run.reward_transform, run.standardize) == ("times-ten-minus-five", False)
    for id in ("mujoco/hopper/medium-replay-v0", "mujoco/hopper/expert-v0", "mujoco/walker2d/medium-v0"):
        settings, run = preset_for("cql", named(id))
        assert (settings.alpha, settings.target_gap, run) == (10, None, RunConfig())
    assert preset_for("cql", named("mujoco/hopper/medium-v0"))[1].reward_transform == "return-range"
    assert preset_for("cql", named("D4RL/door/human-v2"))[0].alpha == 1
    settings, run = preset_for("iql", named("D4RL/door/human-v2"))
    assert (settings.expectile, settings.beta, settings.dropout) == (0.8, 3, 0.1)
    assert kind_of(pendulum.info) == kind_of(named("toy/pendulum-v0")) == "other"
    assert preset_for("awac", named("D4RL/pointmaze/umaze-v2"))[0].temperature == 0.1

    for id, mopo, combo in (
        ("bench/halfcheetah/medium-v0", (5, 0.5), (5, 0.5)),
        ("mujoco/hopper/medium-v0", (5, 5), (5, 5)),
        ("D4RL/hopper_medium_replay", (5, 2.5), (5, 0.5)),
        ("mujoco/walker2d/medium-v0", (5, 0.5), (1, 5)),
        ("mujoco/walker2d/medium-replay-v0", (1, 2.5), (1, 0.5)),
        ("toy/pendulum-v0", (5, 1), (5, 0.5)),
    ):
        settings, _ = preset_for("mopo", named(id))
        assert (settings.rollout_length, settings.penalty_weight, settings.real_ratio) == (*mopo, 0.05)
        settings, _ = preset_for("combo", named(id))
        assert (settings.rollout_length, settings.beta, settings.real_ratio) == (*combo, 0.5)


# CORL's files for IQL: expectile, beta, the target's rate, the policy and the scale of rewards.
PLAIN = (0.7, 3, 5e-3, "gaussian", "none")
CORL_IQL = {
    "hopper/medium": (0.7, 3, 1e-3, "deterministic", "return-range"),
    "hopper/medium-replay": (0.7, 3, 1e-3, "deterministic", "return-range"),
    "hopper/medium-expert": (0.5, 6, 5e-3, "gaussian", "none"),
    "hopper/expert": PLAIN,
    "hopper/random": PLAIN,
    "halfcheetah/medium": PLAIN,
    "halfcheetah/medium-replay": PLAIN,
    "halfcheetah/medium-expert": PLAIN,
    "walker2d/medium": PLAIN,
    "walker2d/medium-replay": PLAIN,
    "walker2d/medium-expert": PLAIN,
}


@pytest.mark.parametrize(("data", "expected"), CORL_IQL.items())
def test_settings_of_iql_by_body_and_data(pendulum, data, expected):
    info = dataclasses.replace(pendulum.info, id=f"bench/{data}-v0", env_spec=None)
    settings, run = preset_for("iql", info)
    found = (settings.expectile, settings.beta, settings.tau, settings.policy, run.reward_transform)
    assert found == expected


def test_minaris_antmaze_gets_no_settings_of_d4rls_and_that_is_said(pendulum):
    minari = dataclasses.replace(pendulum.info, id="D4RL/antmaze/umaze-v1", env_spec=EnvSpec("AntMaze_UMaze-v4"))
    for name in ("iql", "awac", "cql"):
        assert preset_for(name, minari) == (METHODS[name].config_class()(), RunConfig())
    note = note_for("iql", minari)
    assert "D4RL/antmaze/umaze-v1 is not D4RL's AntMaze" in note
    assert note.endswith("--expectile 0.9 --beta 10 --reward-transform minus-one.")
    assert "--target-gap -2.601 --min-penalty -200" in note_for("cql", minari)
    assert note_for("cql", minari).endswith("--reward-transform times-ten-minus-five --no-standardize.")
    for name, info in (
        ("iql", dataclasses.replace(minari, id="d4rl/antmaze-umaze-v2")),
        ("iql", dataclasses.replace(minari, id="d4rl/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse")),
        ("bc", minari),
        ("iql", pendulum.info),
    ):
        assert note_for(name, info) is None


def test_every_preset_is_one_of_the_methods_settings():
    for name, row in CHANGES:
        settings, run = CHANGES[name, row]
        body, _, data = row.partition(" ")
        assert row in KINDS or (body in LOCOMOTION and data in LOCOMOTION_DATA)
        assert METHODS[name].config_class()(**settings)
        assert RunConfig(**run)


def test_several_datasets_train_as_one(tmp_path, pendulum, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    ids = ["toy/first-v0", "toy/second-v0"]
    for id in ids:
        pendulum.save(id)
    output = tmp_path / "run"
    assert main(["baseline", "bc", "--dataset", *ids, "--output", str(output), "--eval-every", "0", *SHORT]) == 0
    values = json.loads((output / "dataset.json").read_text())
    assert [source["id"] for source in values["sources"]] == ids
    assert values["num_episodes"] == 6
    assert "datasets:\n- toy/first-v0\n- toy/second-v0\n" in (output / "README.md").read_text()
    assert main(["baseline", "bc", "--resume", "--output", str(output)]) == 0


@pytest.mark.parametrize("method", ["iql", "awac", "cql"])
def test_ogbenchs_mazes_do_not_take_d4rls_rewards(method):
    box = gymnasium.spaces.Box(-1, 1, (2,))
    for task in ("", "singletask-task1-"):
        spec = gymnasium.spec(f"antmaze-medium-{task}v0")
        info = DatasetInfo(f"ogbench/antmaze-medium-stitch-{task}v0", box, box, spec, num_transitions=10**6)
        settings, run = preset_for(method, info)
        assert run.reward_transform == "none"
        assert settings == preset_for(method, dataclasses.replace(info, id="a/other-v0", env_spec=None))[0]
        assert note_for(method, info) is None
