from types import SimpleNamespace

import pytest

from trajplan.errors import ConfigError
from trajplan.planners.config import BeamSearchConfig
from trajplan.presets import PRESETS, preset_for, preset_named
from trajplan.training.config import TrainConfig

# Horizon, beam, top-k, mass, and epochs per million transitions, as published.
PAPER = {
    "tt_default": (15, 128, None, 0.6, 50),
    "tt_hopper_medium": (15, 128, None, 0.6, 50),
    "tt_hopper_medium_replay": (15, 128, None, 0.6, 80),
    "tt_hopper_medium_expert": (15, 128, None, 0.6, 50),
    "tt_halfcheetah_medium": (5, 32, None, 0.6, 50),
    "tt_halfcheetah_medium_replay": (5, 32, None, 0.6, 80),
    "tt_halfcheetah_medium_expert": (15, 32, None, 0.6, 50),
    "tt_walker2d_medium": (15, 128, None, 0.6, 50),
    "tt_walker2d_medium_replay": (20, 32, 40, None, 80),
    "tt_walker2d_medium_expert": (5, 128, None, 0.6, 50),
    "tt_ant": (5, 128, None, 0.6, 50),
    "tt_ant_medium_replay": (5, 128, None, 0.6, 80),
}


@pytest.mark.parametrize(("name", "expected"), PAPER.items())
def test_paper_values(name, expected):
    preset = PRESETS[name](1_000_000)
    horizon, beam, top_k, cdf, epochs = expected
    assert preset.name == name
    penalty = None if name == "tt_default" else -100.0  # elsewhere an end may mean success
    assert preset.train == TrainConfig(epochs=epochs, termination_penalty=penalty)
    assert preset.planner == BeamSearchConfig(horizon=horizon, beam_width=beam, action_top_k=top_k, action_cdf=cdf)
    assert (preset.planner.n_expand, preset.planner.context, preset.planner.replan_every) == (2, 5, 1)
    assert (preset.planner.discount, preset.planner.observation_top_k) == (0.99, 1)


def test_a_smaller_dataset_is_passed_over_more_often():
    assert preset_named("tt_hopper_medium", 200_000).train.epochs == pytest.approx(250)


def test_an_end_in_a_maze_is_not_punished():
    assert preset_named("tt_pointmaze").train.termination_penalty is None


def test_the_debug_preset_is_tiny_and_of_fixed_length():
    small, large = preset_named("tt_debug", 1_000), preset_named("tt_debug", 1_000_000)
    assert small == large
    assert small.train.updates == 50


@pytest.mark.parametrize(
    ("id", "env", "expected"),
    [
        ("bench/hopper/medium-replay-v0", "Hopper-v5", "tt_hopper_medium_replay"),
        ("bench/hopper/medium-v0", "Hopper-v5", "tt_hopper_medium"),
        ("bench/halfcheetah/medium-expert-v0", "HalfCheetah-v5", "tt_halfcheetah_medium_expert"),
        ("D4RL/walker2d/medium_replay-v2", None, "tt_walker2d_medium_replay"),
        ("mujoco/walker2d/expert-v0", "Walker2d-v5", "tt_walker2d_medium"),
        ("mujoco/ant/medium-v0", "Ant-v5", "tt_ant"),
        ("d4rl/ant-medium-replay-v2", None, "tt_ant_medium_replay"),
        ("D4RL/antmaze/umaze-v1", "AntMaze_UMaze-v5", "tt_pointmaze"),
        ("D4RL/pointmaze/large-v2", "PointMaze_Large-v3", "tt_pointmaze"),
        ("bench/door/human-v0", "AdroitHandDoor-v1", "tt_default"),
        ("toy/elegant-v0", None, "tt_default"),
        ("hopper-data/pendulum-v0", "Pendulum-v1", "tt_default"),
    ],
)
def test_chosen_by_environment_and_kind(id, env, expected):
    info = SimpleNamespace(id=id, env_spec=env and SimpleNamespace(id=env), num_transitions=500_000)
    preset = preset_for(info)
    assert preset == preset_named(expected, 500_000)
    assert preset.name == expected


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="tt_debug"):
        preset_named("tt_nosuch")
