import numpy as np
import pytest

from trajplan.data.scores import ReferenceScores, reference_for_d4rl, reference_for_environment
from trajplan.errors import DataError


def test_a_deviation_is_scaled_and_never_shifted():
    reference = ReferenceScores(-100.0, 300.0, "test")
    returns = np.random.default_rng(0).normal(50, 20, size=1000)
    scores = reference.normalize(returns)
    assert scores.std() == pytest.approx(float(reference.normalize_std(returns.std())))
    assert scores.mean() == pytest.approx(float(reference.normalize(returns.mean())))


@pytest.mark.parametrize(
    ("env_id", "low", "high"),
    [
        ("Hopper-v5", -20.272, 3234.3),
        ("HalfCheetah-v4", -280.179, 12135.0),
        ("Walker2d-v5", 1.629, 4592.3),
        ("Ant-v5", -325.6, 3879.7),
        ("AdroitHandDoor-v1", -56.513, 2880.569),
    ],
)
def test_environments(env_id, low, high):
    reference = reference_for_environment(env_id)
    assert (reference.min, reference.max) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hopper_medium-v2", (-20.272305, 3234.3)),
        ("halfcheetah_medium_expert-v2", (-280.178953, 12135.0)),
        ("ant_medium-v2", (-325.6, 3879.7)),
        ("Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse", (0.0, 1.0)),
        ("antmaze-umaze-v2", (0.0, 1.0)),
        ("door-v0_demos_clipped", (-56.512833, 2880.5693087298737)),
        ("maze2d-umaze-sparse-v1", (23.85, 161.86)),
        ("maze2d-large-v1", (6.7, 273.99)),
    ],
)
def test_d4rl_names(name, expected):
    reference = reference_for_d4rl(name)
    assert (reference.min, reference.max) == expected


def test_unknown_names_have_no_score():
    # Dense mazes and Gymnasium's own mazes are on another scale than D4RL's sparse ones.
    for name in ("maze2d-umaze-dense-v1", "kitchen-mixed-v0", "hopperlike-v0"):
        assert reference_for_d4rl(name) is None
    for env_id in ("PointMaze_UMaze-v3", "AntMaze_UMaze-v4", "HopperLike-v0"):
        assert reference_for_environment(env_id) is None


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_impossible_references(low, high):
    with pytest.raises(DataError, match="minimum below"):
        ReferenceScores(low, high, "test")
