import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.baselines.registry import method_named
from trajplan.comparison.published import NAMES, d4rl_name, published, published_scores
from trajplan.data.info import DatasetInfo


def info(id, environment=None):
    made = DatasetInfo(id=id, observation_space=spaces.Box(-1, 1, (3,)), action_space=spaces.Box(-1, 1, (2,)))
    if environment is None:
        return made
    return dataclasses.replace(made, env_spec=gymnasium.envs.registration.EnvSpec(environment, entry_point="x:Y"))


@pytest.mark.parametrize(
    ("id", "environment", "expected"),
    [
        ("bench/hopper/medium-replay-v0", "Hopper-v5", "hopper-medium-replay"),
        ("mujoco/halfcheetah/medium_expert-v0", None, "halfcheetah-medium-expert"),
        ("walker2d-medium-v2", None, "walker2d-medium"),
        ("D4RL/door/human-v2", "AdroitHandDoor-v1", "door-human"),
        ("D4RL/antmaze/umaze-v1", "AntMaze_UMaze-v4", "antmaze-umaze"),
        ("D4RL/antmaze/medium-play-v1", "AntMaze_Medium-v4", "antmaze-medium-play"),
        ("D4RL/antmaze/medium-diverse-v1", "AntMaze_Medium-v4", None),
        ("mujoco/hopper/expert-v0", "Hopper-v5", None),
        ("mujoco/ant/medium-v0", "Ant-v5", None),
        ("pointmaze/umaze-mixed-v0", "PointMaze_UMaze-v3", None),
        ("door/medium-v0", "AdroitHandDoor-v1", None),
    ],
)
def test_which_rows_suit_a_dataset(id, environment, expected):
    assert d4rl_name(info(id, environment)) == expected


def test_scores_of_our_methods():
    assert published_scores("hopper-medium-replay", "tt", {}) == [91.5]
    assert published_scores("hopper-medium-replay", "cql", {"alpha": 10.0}) == [95.0, 95.1, 98.6]
    assert published_scores("hopper-medium-replay", "bc", {"top_fraction": 1.0}) == [27.6, 29.8]
    assert published_scores("halfcheetah-medium", "combo", {"beta": 0.5}) == [71.9]
    assert published_scores("hopper-medium-expert", "mopo", {"penalty_weight": 5.0}) == [74.6]
    assert published_scores("door-human", "iql", {"beta": 3.0}) == [3.3]
    assert published_scores("hopper-medium-replay", "tt", {"planner.type": "beam_search"}) == [91.5]
    assert published_scores("hopper-medium-replay", "tt", {"planner.type": "imitation"}) == []
    assert published_scores(None, "iql", {}) == []
    assert published_scores("hopper-medium", "unheard-of", {}) == []


def test_bc_of_the_best_tenth_has_scores_of_its_own():
    assert published_scores("hopper-medium-replay", "bc", {"top_fraction": 0.1}) == [70.4]
    assert published_scores("hopper-medium-replay", "bc", {"top_fraction": 0.3}) == []
    assert published_scores("hopper-medium-replay", "iql", {"top_fraction": 0.1}) == []


@pytest.mark.parametrize(("method", "setting"), [("mopo", "penalty_weight"), ("combo", "beta"), ("cql", "alpha")])
def test_without_what_makes_a_method_it_has_no_published_score(method, setting):
    assert setting in {field.name for field in dataclasses.fields(method_named(method).config_class())}
    assert published_scores("hopper-medium", method, {setting: 0.1}) != []
    assert published_scores("hopper-medium", method, {setting: 0.0}) == []


def test_rows_are_whole():
    bodies, kinds = ("halfcheetah", "hopper", "walker2d"), ("medium", "medium-replay", "medium-expert")
    for body in bodies:
        for kind in kinds:
            rows = published(f"{body}-{kind}")
            assert [len(row.scores) for row in rows] == [5, 5, 4]
            for row in rows:
                assert set(row.scores) <= set(NAMES) | {"DT", "MBOP"}
                assert np.isfinite(list(row.scores.values())).all()
    # The mean that the paper prints for its nine datasets.
    ours = [published_scores(f"{body}-{kind}", "tt", {})[0] for body in bodies for kind in kinds]
    assert np.mean(ours) == pytest.approx(78.9, abs=0.05)
