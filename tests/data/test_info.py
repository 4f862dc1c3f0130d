import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.collection.repeat import ActionRepeat
from trajplan.data.info import DatasetInfo, package_versions
from trajplan.data.scores import ReferenceScores
from trajplan.errors import CheckpointError, DataError
from trajplan.runs.folder import check_same_dataset

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)


def info(action_space=None, **options):
    return DatasetInfo("toy/data-v0", BOX, action_space or spaces.Box(-1, 1, (2,), np.float32), **options)


def test_sizes():
    continuous = info()
    assert (continuous.observation_dim, continuous.action_dim) == (3, 2)
    assert (continuous.is_discrete, continuous.num_actions) == (False, None)
    discrete = info(spaces.Discrete(5))
    assert (discrete.action_dim, discrete.is_discrete, discrete.num_actions) == (1, True, 5)


def test_unflatten_clips_to_the_box():
    low, high = np.array([[-1.0, 0.0]], np.float32), np.array([[1.0, 0.5]], np.float32)
    box = info(spaces.Box(low, high))
    action = box.unflatten_action(np.array([3.0, -3.0]))
    np.testing.assert_array_equal(action, [[1.0, 0.0]])
    assert box.action_space.contains(action)
    batch = box.unflatten_action(np.array([[0.25, 0.25], [-2.0, 2.0]], np.float32))
    np.testing.assert_array_equal(batch, [[[0.25, 0.25]], [[-1.0, 0.5]]])
    assert batch.dtype == np.float32


def test_unflatten_discrete_starts_where_the_space_starts():
    discrete = info(spaces.Discrete(3, start=-1))
    action = discrete.unflatten_action(np.array([2.0]))
    assert action == 1
    assert isinstance(action, int)
    batch = discrete.unflatten_action(np.array([[0.0], [1.4], [7.0]]))
    assert batch.tolist() == [-1, 0, 1]
    assert batch.dtype == np.int64


def test_unflatten_refuses():
    with pytest.raises(DataError, match="2"):
        info().unflatten_action(np.zeros(3))
    with pytest.raises(DataError, match="not a number"):
        info().unflatten_action(np.array([np.nan, 0.0]))


def test_flatten_refuses_another_shape():
    with pytest.raises(DataError, match=r"toy/data-v0.*\(4,\)"):
        info().flatten_observation(np.zeros(4))


def test_normalised_scores():
    assert info().normalized_score([1.0]) is None
    scored = info(reference=ReferenceScores(-20.0, 180.0, "test"))
    np.testing.assert_allclose(scored.normalized_score([-20.0, 80.0, 180.0]), [0.0, 50.0, 100.0])


def test_json_round_trip():
    full = info(
        env_spec=gymnasium.spec("Hopper-v5"),
        reference=ReferenceScores(0.0, 2.5, "test"),
        num_transitions=10,
        num_episodes=2,
        mean_return=1.25,
        versions=package_versions(),
    )
    text = json.dumps(full.to_dict(), allow_nan=False)
    assert DatasetInfo.from_dict(json.loads(text)) == full
    # A checkpoint keeps its discount in the same file.
    assert DatasetInfo.from_dict({**json.loads(text), "discount": 0.99}) == full
    assert DatasetInfo.from_dict(info().to_dict()) == info()


OLD = Path(__file__).parents[1] / "assets" / "maze_dataset.json"


def test_a_dataset_json_written_before_spaces_had_minaris_form(tmp_path):
    """Nor had the wrapper its present place: the file is of a dataset collected with an action repeat."""
    old = DatasetInfo.from_dict(json.loads(OLD.read_text()))
    assert old.observation_dim == 8
    assert old.observation_space["observation"] == spaces.Box(-np.inf, np.inf, (4,), np.float64)
    assert old.action_space == spaces.Box(-1, 1, (2,), np.float32)
    assert (old.num_episodes, old.reference, old.sources) == (2, None, ())
    env = old.make_env()
    assert isinstance(env, ActionRepeat)
    assert env.repeat == 5
    env.close()
    now = old.to_dict()
    assert isinstance(now["observation_space"], str)
    assert DatasetInfo.from_dict(now) == old
    # A run that wrote it can be resumed.
    shutil.copy(OLD, tmp_path / "dataset.json")
    check_same_dataset(tmp_path, DatasetInfo.from_dict(now))
    with pytest.raises(CheckpointError, match=r"its action_space is Box\(-2.0.* and was Box\(-1.0"):
        check_same_dataset(tmp_path, replace(old, action_space=spaces.Box(-2, 2, (2,))))


@pytest.mark.parametrize(
    "damage",
    [
        {"observation_space": {"type": "Graph"}},
        {"observation_space": '{"type": "Graph"}'},
        {"action_space": 3},
        {"env_spec": {}},
    ],
)
def test_damaged_json(damage):
    values = {**info().to_dict(), **damage}
    with pytest.raises(DataError):
        DatasetInfo.from_dict(values)
    del values["versions"]
    with pytest.raises(DataError):
        DatasetInfo.from_dict(values)


def test_versions_are_those_installed():
    versions = package_versions()
    for name in ("gymnasium", "minari", "trajplan"):
        assert versions[name] == metadata.version(name)


def test_an_unknown_environment_cannot_be_made():
    with pytest.raises(DataError, match="toy/data-v0"):
        info().make_env()


def test_goal_columns_are_saved_and_missing_from_older_files():
    known = info(goal_columns=(2, 0))
    assert DatasetInfo.from_dict(json.loads(json.dumps(known.to_dict()))).goal_columns == (2, 0)
    older = info().to_dict()
    del older["goal_columns"]
    assert DatasetInfo.from_dict(older).goal_columns is None


@pytest.mark.parametrize("columns", [(), (3,), (-1,), (0, 0)])
def test_goal_columns_are_columns_of_the_observation(columns):
    with pytest.raises(DataError, match="different columns of the 3"):
        info(goal_columns=columns)
