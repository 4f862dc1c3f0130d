import math
from types import SimpleNamespace

import gymnasium
import pytest

from trajplan.errors import ConfigError
from trajplan.planners.beam_search import BeamSearchConfig, check_window
from trajplan.presets import preset_for, preset_named
from trajplan.training.config import TrainConfig, differences

# Horizon, beam, top-k, epochs per million transitions and batch, as released; where there is no top-k, the actions are
# cut to what the release's cdf 0.6 keeps, the likeliest 0.4.
PAPER = {
    "tt_default": (15, 128, None, 50, 256),
    "tt_hopper_medium": (15, 128, None, 50, 256),
    "tt_hopper_medium_replay": (15, 128, None, 80, 256),
    "tt_hopper_medium_expert": (15, 128, None, 50, 256),
    "tt_halfcheetah_medium": (5, 32, None, 50, 256),
    "tt_halfcheetah_medium_replay": (5, 32, None, 50, 256),
    "tt_halfcheetah_medium_expert": (15, 32, None, 50, 256),
    "tt_walker2d_medium": (15, 128, None, 50, 256),
    "tt_walker2d_medium_replay": (20, 32, 40, 80, 256),
    "tt_walker2d_medium_expert": (5, 128, None, 50, 256),
    "tt_ant": (5, 128, None, 50, 128),
}


@pytest.mark.parametrize(("name", "expected"), PAPER.items())
def test_paper_values(name, expected):
    preset = preset_named(name, 1_000_000)
    horizon, beam, top_k, epochs, batch = expected
    assert preset.name == name
    penalty = None if name == "tt_default" else -100.0  # elsewhere an end may mean success
    assert (preset.train.epochs, preset.train.batch_size, preset.train.termination_penalty) == (epochs, batch, penalty)
    # The warm-up takes one pass over the data.
    assert preset.train.warmup_updates == math.ceil(1_000_000 / batch)
    changed = {"epochs", "batch_size", "termination_penalty", "warmup_updates"}
    assert {field.split()[0] for field in differences(preset.train, TrainConfig())} <= changed
    cdf = 0.4 if top_k is None else None
    assert preset.planner == BeamSearchConfig(horizon=horizon, beam_width=beam, action_top_k=top_k, action_cdf=cdf)
    assert (preset.planner.n_expand, preset.planner.context, preset.planner.replan_every) == (2, 5, 1)
    assert (preset.planner.discount, preset.planner.observation_top_k) == (0.99, 1)


def test_the_warm_up_of_the_papers_presets_takes_one_pass_over_the_data_that_there_is():
    assert preset_named("tt_hopper_medium_replay", 400_000).train.warmup_updates == 1563
    assert preset_named("tt_ant", 300_000).train.warmup_updates == 2344


def test_a_smaller_dataset_is_passed_over_more_often():
    assert preset_named("tt_hopper_medium", 200_000).train.epochs == pytest.approx(250)


def test_an_end_in_a_maze_is_not_punished():
    assert preset_named("tt_pointmaze").train.termination_penalty is None


def test_the_debug_preset_is_tiny_and_of_fixed_length():
    small, large = preset_named("tt_debug", 1_000), preset_named("tt_debug", 1_000_000)
    assert small == large
    assert small.train.updates == 50


def named(id, env=None, transitions=500_000, observation_dim=11):
    spec = env and SimpleNamespace(id=env)
    return SimpleNamespace(id=id, env_spec=spec, num_transitions=transitions, observation_dim=observation_dim)


@pytest.mark.parametrize(
    ("id", "env", "expected"),
    [
        ("bench/hopper/medium-replay-v0", "Hopper-v5", "tt_hopper_medium_replay"),
        ("bench/hopper/medium-v0", "Hopper-v5", "tt_hopper_medium"),
        ("bench/halfcheetah/medium-expert-v0", "HalfCheetah-v5", "tt_halfcheetah_medium_expert"),
        ("D4RL/walker2d/medium_replay-v2", None, "tt_walker2d_medium_replay"),
        ("mujoco/walker2d/expert-v0", "Walker2d-v5", "tt_walker2d_medium"),
        ("mujoco/ant/medium-v0", "Ant-v5", "tt_ant"),
        ("d4rl/ant-medium-replay-v2", None, "tt_ant"),
        ("D4RL/antmaze/umaze-v1", "AntMaze_UMaze-v5", "tt_pointmaze"),
        ("D4RL/pointmaze/large-v2", "PointMaze_Large-v3", "tt_pointmaze"),
        ("bench/door/human-v0", "AdroitHandDoor-v1", "tt_default"),
        ("toy/elegant-v0", None, "tt_default"),
        ("hopper-data/pendulum-v0", "Pendulum-v1", "tt_default"),
    ],
)
def test_much_data_on_a_gpu_is_trained_on_by_environment_and_kind(id, env, expected):
    preset = preset_for(named(id, env), gpu=True)
    assert preset == preset_named(expected, 500_000)
    assert (preset.name, preset.why) == (expected, "chosen by environment and kind of data")


@pytest.mark.parametrize(
    ("env", "transitions", "gpu", "expected", "why"),
    [
        ("Pendulum-v1", 12_000, False, "tt_small", "12,000 transitions are few"),
        ("Pendulum-v1", 12_000, True, "tt_small", "12,000 transitions are few"),
        ("Pendulum-v1", 100_000, False, "tt_cpu", "there is no GPU here"),
        ("PointMaze_UMaze-v3", 500_000, False, "tt_cpu", "there is no GPU here"),
        ("AntMaze_UMaze-v4", 50_000, True, "tt_small", "50,000 transitions are few"),
        ("Hopper-v5", 500_000, False, "tt_cpu_locomotion", "there is no GPU here"),
        ("Hopper-v5", 99_999, True, "tt_small_locomotion", "99,999 transitions are few"),
        ("Ant-v5", 99_999, False, "tt_small_locomotion", "99,999 transitions are few"),
    ],
)
def test_little_data_and_a_cpu_have_presets_of_their_own(env, transitions, gpu, expected, why):
    preset = preset_for(named("toy/mixed-v0", env, transitions), gpu=gpu)
    assert preset == preset_named(expected, transitions)
    assert (preset.name, preset.why) == (expected, why)


@pytest.mark.parametrize("transitions", [500, 12_000, 99_999, 100_000, 1_000_000, 30_000_000])
@pytest.mark.parametrize("name", ["tt_small", "tt_small_locomotion", "tt_cpu", "tt_cpu_locomotion"])
def test_their_length_is_capped_in_passes_and_in_updates(name, transitions):
    preset = preset_named(name, transitions)
    train = preset.train
    resolved = train.resolved(windows=transitions, bf16=False, cpu=False)
    assert train.epochs <= 20
    assert resolved.updates <= 4000
    assert train.updates is None  # so that --epochs and --batch-size are not shadowed
    assert (train.embd_pdrop, train.attn_pdrop, train.resid_pdrop) == (0, 0, 0)
    assert train.learning_rate > TrainConfig().learning_rate
    assert train.patience is not None
    assert train.termination_penalty == (-100 if name.endswith("locomotion") else None)
    check_window(preset.planner, train.window)
    assert preset.planner.discount == train.discount


def test_what_a_preset_is_for_is_no_part_of_what_it_is():
    chosen = preset_for(named("toy/mixed-v0", "Pendulum-v1", 12_000), gpu=False)
    assert chosen == preset_named("tt_small", 12_000)
    assert preset_named("tt_small", 12_000).why == ""


def test_contact_forces_of_an_ant_are_named_with_what_to_do():
    note = preset_for(named("mujoco/ant/medium-v0", "Ant-v5", observation_dim=105), gpu=True).note
    assert "105 observation dimensions, the paper's ant 27" in note
    assert "115 tokens" in note
    assert """--env-kwargs '{"include_cfrc_ext_in_observation": false}'""" in note
    assert preset_for(named("mujoco/ant/medium-v0", "Ant-v5", observation_dim=27), gpu=True).note is None
    assert preset_for(named("D4RL/antmaze/umaze-v1", "AntMaze_UMaze-v5", observation_dim=107), gpu=True).note is None
    environment = gymnasium.make("Ant-v5", include_cfrc_ext_in_observation=False)
    assert environment.observation_space.shape == (27,)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="tt_debug"):
        preset_named("tt_nosuch")
