import gymnasium
import numpy as np
import pytest

from trajplan.data.dataset import OfflineDataset


@pytest.fixture(scope="session")
def short_pendulum():
    """Makes a dataset of so many short random episodes of Pendulum-v1."""
    return random_episodes


def random_episodes(count):
    env = gymnasium.make("Pendulum-v1", max_episode_steps=6)
    env.action_space.seed(0)
    episodes = []
    for seed in range(count):
        observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
        for _ in range(6):
            actions.append(env.action_space.sample())
            observation, reward, *_ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        last = np.arange(6) == 5
        arrays = {"observations": np.stack(observations), "actions": np.stack(actions), "rewards": np.array(rewards)}
        episodes.append(arrays | {"terminations": np.zeros(6, bool), "truncations": last})
    return OfflineDataset.from_episodes(
        episodes, id="toy/pendulum-v0", observation_space=env.observation_space, action_space=env.action_space,
        env_spec=env.spec,
    )  # fmt: skip
