from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from trajplan.data.info import DatasetInfo
from trajplan.data.scores import ReferenceScores


class MemoryPolicy:
    """Acts by all that it was ever told in the episode, so that any mix-up of slots, seeds or rewards shows."""

    def __init__(self, info):
        self.info = info
        self.states = {}
        self.calls = []
        self.resets = []

    def reset(self, seeds, rows, goals=None):
        for seed, row in zip(seeds, rows, strict=True):
            self.states[row] = SimpleNamespace(rng=np.random.default_rng(seed), memory=0.0, first=True)
            self.resets.append((row, seed))

    def act(self, observations, rewards, rows):
        assert observations.dtype == np.float32
        assert observations.shape == (len(rows), self.info.observation_dim)
        assert len(rewards) == len(rows) == len(set(rows))
        self.calls.append(list(rows))
        actions = [
            self._one(self.states[r], o, reward) for r, o, reward in zip(rows, observations, rewards, strict=True)
        ]
        return np.array(actions, np.float32).reshape(len(rows), self.info.action_dim)

    def _one(self, state, observation, reward):
        told = 0.0 if state.first else float(reward)
        state.first = False
        state.memory = 0.9 * state.memory + told + float(np.abs(observation).sum())
        if self.info.is_discrete:
            return [state.rng.random() < 0.5 + 0.4 * np.sin(state.memory)]
        return np.sin(state.memory + state.rng.normal(size=self.info.action_dim))


def info_of(env_id, reference=None, **kwargs):
    env = gymnasium.make(env_id, **kwargs)
    info = DatasetInfo(
        id="test/data-v0",
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        reference=reference,
        num_transitions=100,
        num_episodes=4,
        mean_return=20.0,
    )
    env.close()
    return info


@pytest.fixture
def cartpole():
    """Discrete actions, episodes of very different lengths."""
    return info_of("CartPole-v1", ReferenceScores(10.0, 500.0, "test"))


@pytest.fixture
def pendulum():
    """A Box action; every episode is 200 steps."""
    return info_of("Pendulum-v1")


@pytest.fixture
def point_maze():
    from trajplan.data.environment import find_environment

    return info_of(find_environment("PointMaze_UMaze-v3").id, max_episode_steps=30)


@pytest.fixture
def memory_policy():
    return MemoryPolicy


@pytest.fixture
def make_plan():
    """A plan of beams that walk in straight lines from the observation to places around it."""

    def make(observation, info, position=slice(0, 2), beams=16, horizon=10, seed=0):
        rng = np.random.default_rng(seed)
        steps = np.arange(horizon)[None, :, None] / horizon
        observations = np.repeat(np.repeat(observation[None, None], beams, 0), horizon, 1).astype(np.float32)
        observations[..., position] += rng.normal(size=(beams, 1, 2)) * steps
        lengths = rng.integers(3, horizon + 1, size=(beams, 1))
        alive = np.arange(horizon) < lengths
        # Of those that are shorter than the horizon every second one ends; the others were looked at no further.
        short = (lengths < horizon) & (np.arange(beams)[:, None] % 2 == 0)
        goes_on = alive & ~(short & (np.arange(horizon) == lengths - 1))
        return SimpleNamespace(
            observations=observations,
            actions=np.zeros((beams, horizon, info.action_dim), np.float32),
            rewards=rng.normal(size=(beams, horizon)),
            returns=np.where(goes_on, rng.normal(size=(beams, horizon)), 0),
            scores=-np.sort(-rng.normal(size=beams)),
            log_likelihood=-rng.random(beams),
            alive=alive,
        )

    return make
