import numpy as np
import pytest
from gymnasium import spaces

from trajplan.cli import main
from trajplan.data.dataset import OfflineDataset
from trajplan.data.goals_apart import goals_apart
from trajplan.errors import DataError


def box(width):
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


SPACE = spaces.Dict({"achieved_goal": box(2), "desired_goal": box(2), "observation": box(3), "a": box(1)})


def episode(rng, length):
    return {
        "observations": {key: rng.normal(size=(length + 1, *part.shape)) for key, part in SPACE.spaces.items()},
        "actions": rng.uniform(-1, 1, (length, 2)),
        "rewards": rng.normal(size=length),
        "terminations": np.zeros(length, bool),
        "truncations": np.arange(length) == length - 1,
    }


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    return OfflineDataset.from_episodes(
        [episode(rng, length) for length in (4, 2)], id="toy/dict-v0", observation_space=SPACE
    )


def test_only_the_desired_goal_leaves_the_observation(dataset):
    apart = goals_apart(dataset)
    # Columns by sorted key: a, achieved_goal (2), desired_goal (2), observation (3).
    np.testing.assert_array_equal(apart.observations, dataset.observations[:, [0, 1, 2, 5, 6, 7]])
    assert apart.info.goal_columns == (1, 2)
    assert [part.name for part in apart.info.observation_layout] == ["a", "achieved_goal", "observation"]
    assert apart.info.transforms == ({"name": "goals-apart", "dataset": "toy/dict-v0"},)
    for name in ("actions", "rewards", "terminations", "truncations", "offsets"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(dataset, name))
    told = {key: np.full(part.shape, 7.0) for key, part in SPACE.spaces.items()}
    assert apart.info.flatten_observation(told).shape == (6,)


def test_the_command_writes_it(dataset, data_root, capsys):
    dataset.save("toy/dict-v0")
    assert main(["datasets", "goals", "toy/dict-v0", "--id", "toy/apart-v0"]) == 0
    assert "6 transitions in 2 episodes as toy/apart-v0: 6 dimensions are observed, of which a goal fixes 1, 2." in (
        capsys.readouterr().out
    )
    apart = OfflineDataset.from_minari("toy/apart-v0")
    np.testing.assert_array_equal(apart.observations, goals_apart(dataset).observations)
    assert (apart.info.goal_columns, apart.info.transforms[0]["name"]) == ((1, 2), "goals-apart")
    for command, message in (
        (["toy/dict-v0", "--id", "toy/apart-v0"], "exists already"),
        (["toy/apart-v0", "--id", "toy/more-v0"], "has no goals to take out"),
    ):
        assert main(["datasets", "goals", *command]) == 2
        assert message in capsys.readouterr().err


def test_observations_without_goals_are_refused():
    rng = np.random.default_rng(0)
    plain = episode(rng, 3)
    plain["observations"] = plain["observations"]["observation"]
    with pytest.raises(DataError, match="no goals to take out"):
        goals_apart(OfflineDataset.from_episodes([plain]))
