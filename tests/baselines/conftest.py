import numpy as np
import pytest
from gymnasium import spaces

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS
from trajplan.data.dataset import OfflineDataset


@pytest.fixture(autouse=True)
def alike_on_all_machines(one_thread):
    """Every test here runs on one thread."""


def episodes(actions_of, lengths):
    rng = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        flags = np.zeros((2, length), bool)
        flags[number % 2, -1] = True
        yield {
            "observations": rng.normal(5, [1, 10, 0.1], (length + 1, 3)).astype(np.float32),
            "actions": actions_of(rng, length),
            "rewards": rng.normal(number, 1, length).astype(np.float32),
            "terminations": flags[0],
            "truncations": flags[1],
        }


@pytest.fixture(scope="session")
def walks():
    """8 episodes of random numbers with actions in an uneven Box; half end in a terminal, half by a time limit."""
    low, high = np.array([-2, 0], np.float32), np.array([1, 4], np.float32)
    data = episodes(lambda rng, length: rng.uniform(low, high, (length, 2)).astype(np.float32), range(3, 11))
    return OfflineDataset.from_episodes(data, id="walks", action_space=spaces.Box(low, high), goal_columns=(0, 1, 2))


@pytest.fixture(scope="session")
def choices():
    """The same with 4 Discrete actions that are counted from 1."""
    data = episodes(lambda rng, length: rng.integers(1, 5, length), range(3, 11))
    return OfflineDataset.from_episodes(
        data, id="choices", action_space=spaces.Discrete(4, start=1), goal_columns=(0, 1, 2)
    )


SMALL_MODEL = {
    **{"model_members": 3, "model_elites": 2, "model_layers": 1, "model_width": 8, "model_batch_size": 16},
    **{"model_max_epochs": 3, "rollout_length": 3, "rollout_starts": 10, "rollout_every": 3, "rollout_keep": 2},
}


@pytest.fixture(scope="session")
def small():
    """Settings of a method with tiny networks, and a tiny model if it has one: `small(name, **changes)`."""

    def make(name, **changes):
        config_class = METHODS[name].config_class()
        model = SMALL_MODEL if issubclass(config_class, ModelBasedConfig) else {}
        return config_class(**{"hidden_width": 8, "hidden_layers": 1} | model | changes)

    return make


@pytest.fixture(scope="session")
def quick():
    """Settings of a short run: `quick(**changes)`."""

    def make(**changes):
        run = {"updates": 12, "batch_size": 8, "log_every": 2, "eval_every": 5, "save_every": 4}
        return RunConfig(**run | changes)

    return make
