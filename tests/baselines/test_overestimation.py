"""What the other methods are for: soft actor-critic believes in actions that the data knows nothing of."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from trajplan.baselines.cql import CQLConfig
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.sac import SACConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.evaluation.rollout import evaluate
from trajplan.evaluation.values import ValueCheck

STEPS, DISCOUNT = 30, 0.8


class Cliff(gymnasium.Env):
    """The reward is ten times the action up to 0.3; beyond, where the data never is, -10. Observations mean nothing."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        reward = 10 * float(action[0]) if abs(action[0]) <= 0.3 else -10.0
        return self.observe(), reward, False, False, {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


def cliff():
    return TimeLimit(Cliff(), STEPS)


@pytest.fixture(scope="module")
def dataset():
    rng, env, episodes = np.random.default_rng(0), cliff(), []
    for number in range(40):
        actions = rng.uniform(-0.3, 0.3, (STEPS, 1)).astype(np.float32)
        observations, rewards = [env.reset(seed=number)[0]], []
        for action in actions:
            observation, reward, *_ = env.step(action)
            observations.append(observation)
            rewards.append(reward)
        arrays = {"observations": np.stack(observations), "actions": actions, "rewards": np.array(rewards)}
        none = np.zeros(STEPS, bool)
        episodes.append(arrays | {"terminations": none, "truncations": np.arange(STEPS) == STEPS - 1})
    return OfflineDataset.from_episodes(episodes, id="cliff", action_space=env.action_space)


def values(dataset, folder, name, config):
    """Predicted value and discounted return at the end of a run."""

    def measure(policy):
        check = ValueCheck(policy, DISCOUNT, 1.0, 0.0)
        return check.numbers(evaluate(policy, cliff, episodes=8, num_envs=8, observers=[check]).episodes)

    run = RunConfig(updates=600, batch_size=64, eval_every=600, log_every=600, save_every=600)
    metrics = train(dataset, folder, name, config, run, evaluate=measure, device="cpu", progress=False).metrics
    return metrics["evaluation/predicted_value"], metrics["evaluation/discounted_return"]


def test_soft_actor_critic_overestimates_and_conservative_q_learning_does_not(dataset, tmp_path):
    same = {"discount": DISCOUNT, "hidden_layers": 2, "hidden_width": 32, "tau": 0.02}
    same |= {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "temperature_learning_rate": 3e-3}
    predicted, earned = values(dataset, tmp_path / "sac", "sac", SACConfig(**same))
    # It walks off the cliff, to -10 / (1 - discount), and expects more of it than of anything in the data.
    assert earned < -40
    assert predicted > 10 * 0.3 / (1 - DISCOUNT)
    predicted, earned = values(dataset, tmp_path / "cql", "cql", CQLConfig(alpha=0.3, **same))
    # It stays with the best of the data, and promises somewhat less than it keeps.
    assert earned > 9
    assert 0.6 * earned < predicted < earned
