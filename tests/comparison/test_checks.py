import numpy as np
import pytest
from gymnasium import spaces

from trajplan.baselines.registry import METHODS
from trajplan.comparison.checks import check_environments, check_method
from trajplan.comparison.settings import TRANSFORMER, EvaluationConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError, DataError

BOX = spaces.Box(-1, 1, (2,), np.float32)


def dataset(space=BOX, episodes=3, rewards=(0.0, 1.0, 2.0), id="toy/hopper/medium-v0"):
    rng = np.random.default_rng(0)
    data = [
        {
            "observations": rng.normal(size=(6, 3)).astype(np.float32),
            "actions": np.stack([np.asarray(space.sample()) for _ in range(5)]),
            "rewards": np.full(5, rewards[number]),
            "terminations": np.zeros(5, bool),
            "truncations": np.arange(5) == 4,
        }
        for number in range(episodes)
    ]
    return OfflineDataset.from_episodes(data, id=id, action_space=space, goal_columns=(0, 1, 2))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("iql", {"expectile": 1.5}, "expectile is 1.5"),
        ("bc", {"updates": 0}, "updates is 0"),
        ("tt", {"n_embd": 30, "n_head": 4}, "n_embd is 30"),
        ("tt", {"preset": "tt_nothing"}, "Unknown preset 'tt_nothing'"),
        ("tt", {"planner.horizon": 0}, "horizon is 0"),
        (
            "tt",
            {"preset": "tt_hopper_medium", "planner.context": 10},
            "context is 10 transitions, the model's window 10",
        ),
        ("tt", {"preset": "tt_hopper_medium", "window": 5}, "context is 5 transitions, the model's window 5"),
        ("tt", {"preset": "tt_hopper_medium", "window": 5, "planner.context": 2}, "whatever planner.context is"),
    ],
)
def test_values_out_of_range_are_refused(method, settings, message):
    with pytest.raises(ConfigError, match=message):
        check_method(method, settings, dataset())


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if entry.discrete is None])
def test_methods_for_continuous_actions_refuse_discrete_ones(method):
    with pytest.raises(ConfigError, match="is for continuous actions only, and dataset 'toy/hopper/medium-v0' has"):
        check_method(method, {}, dataset(spaces.Discrete(3)))


@pytest.mark.parametrize("method", [*METHODS, TRANSFORMER])
def test_every_method_takes_data_that_suit_it(method):
    assert check_method(method, {}, dataset()) == (method != TRANSFORMER)


def test_data_that_a_method_cannot_learn_from_are_refused():
    with pytest.raises(ConfigError, match=r"all episodes of dataset .* have the same return"):
        check_method("iql", {}, dataset(rewards=(1.0, 1.0, 1.0)))
    with pytest.raises(DataError, match="one episode cannot be split"):
        check_method("tt", {}, dataset(episodes=1))
    unbounded = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    with pytest.raises(ConfigError, match="needs actions with finite bounds"):
        check_method("bc", {}, dataset(unbounded))
    assert not check_method("bc", {"eval_every": 0}, dataset())


def test_a_dataset_without_an_environment_needs_one_named():
    info = dataset(id="toy").info
    with pytest.raises(ConfigError, match="does not record its environment"):
        check_environments(info, EvaluationConfig(), on_the_way=False)
    info = dataset(spaces.Box(-2, 2, (1,), np.float32), id="toy").info
    check_environments(info, EvaluationConfig(env="Pendulum-v1"), on_the_way=False)
    with pytest.raises(ConfigError, match=r"give --set baselines\.eval_every=0"):
        check_environments(info, EvaluationConfig(env="Pendulum-v1"), on_the_way=True)
