import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.info import DatasetInfo
from trajplan.data.validate import check_episode
from trajplan.errors import DataError

BOX = spaces.Box(-1, 1, (2,), np.float32)
INFO = DatasetInfo("toy/data-v0", spaces.Box(-np.inf, np.inf, (3,), np.float64), BOX)


@pytest.fixture
def episode(make_episode):
    return make_episode(np.random.default_rng(0), 4)


def refused(episode, *parts, info=INFO):
    """The one sentence names dataset, episode and field."""
    with pytest.raises(DataError) as error:
        check_episode(episode, info, 7)
    message = str(error.value)
    assert "\n" not in message
    for part in ("toy/data-v0", "episode 7", *parts):
        assert part in message, message


def test_a_good_episode_becomes_float32(episode):
    episode["observations"] = episode["observations"].astype(np.float64)
    episode["rewards"] = episode["rewards"].astype(np.float64)[:, None]
    checked = check_episode(episode, INFO, 0)
    assert checked.observations.dtype == checked.actions.dtype == checked.rewards.dtype == np.float32
    assert checked.rewards.shape == (4,)
    assert checked.terminations.dtype == np.bool_


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminations", "truncations"])
def test_a_missing_field(episode, name):
    del episode[name]
    refused(episode, name, "missing")


def test_an_episode_without_the_last_observation(episode):
    episode["observations"] = episode["observations"][:-1]
    refused(episode, "observations", "5")


@pytest.mark.parametrize("name", ["actions", "terminations", "truncations"])
def test_lengths_that_disagree(episode, name):
    episode[name] = episode[name][:-1]
    refused(episode, name, "4")


def test_too_many_observations(episode):
    episode["observations"] = np.zeros((9, 3))
    refused(episode, "observations", "9", "5")


def test_an_empty_episode(episode):
    refused({name: values[:0] for name, values in episode.items()}, "empty")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize(
    ("name", "index"), [("observations", (2, 1)), ("actions", (3, 0)), ("rewards", (1,)), ("observations", (4, 2))]
)
def test_values_that_are_not_finite_as_float32(episode, name, index, value):
    episode[name] = episode[name].astype(np.float64)
    episode[name][index] = value
    refused(episode, f"{name}[{', '.join(map(str, index))}]", f"step {index[0]}")


def test_a_dict_field_is_named_by_its_key():
    space = spaces.Dict({"goal": spaces.Box(-1, 1, (2,)), "state": spaces.Box(-1, 1, (3,))})
    info = DatasetInfo("toy/data-v0", space, BOX)
    observations = {"goal": np.zeros((3, 2)), "state": np.zeros((3, 3))}
    rest = {"actions": np.zeros((2, 2)), "rewards": np.zeros(2)}
    rest |= {"terminations": np.zeros(2, bool), "truncations": np.zeros(2, bool)}
    observations["state"][1, 2] = np.nan
    refused({"observations": observations, **rest}, "observations['state'][1, 2]", info=info)
    refused({"observations": {"goal": np.zeros((3, 2))}, **rest}, "'state'", "missing", info=info)
    observations["state"] = np.zeros((2, 3))
    refused({"observations": observations, **rest}, "state", "goal", info=info)


def test_shapes_that_do_not_fit_the_spaces(episode):
    refused(episode | {"observations": np.zeros((5, 4))}, "observation", "(5, 4)", "(3,)")
    refused(episode | {"actions": np.zeros((4, 3))}, "actions", "(4, 3)")
    refused(episode | {"rewards": np.zeros((4, 4))}, "rewards", "(4, 4)")
    refused(episode | {"actions": [[1.0], [1.0, 2.0], [0.0], [0.0]]}, "actions")


def test_an_end_before_the_last_step(episode):
    for name in ("terminations", "truncations"):
        flags = np.array([False, True, False, True])
        refused(episode | {name: flags}, f"{name}[1]", "last step")


def test_flags_must_be_true_or_false(episode):
    refused(episode | {"terminations": np.array([0.0, 0.0, 0.0, 0.5])}, "terminations")
    checked = check_episode(episode | {"terminations": np.array([0.0, 0.0, 0.0, 1.0])}, INFO, 0)
    assert checked.terminations.tolist() == [False, False, False, True]


@pytest.mark.parametrize("action", [-1, 3, 0.5, np.nan])
def test_discrete_actions_out_of_range(episode, action):
    info = DatasetInfo("toy/data-v0", INFO.observation_space, spaces.Discrete(3))
    actions = np.array([0, 1, action, 2])
    refused(episode | {"actions": actions}, "actions[2]", info=info)
