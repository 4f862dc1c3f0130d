import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.registry import METHODS
from trajplan.data.dataset import OfflineDataset
from trajplan.evaluation.rollout import evaluate
from trajplan.evaluation.values import ValueCheck
from trajplan.models.networks import Dimensions
from trajplan.models.scaling import Scaling


class Countdown(gymnasium.Env):
    """Ends after as many steps as its first observation says, the seed plus 1; rewards are 1, 2, 3, ..."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.steps = seed + 1, 0
        return np.array([self.left], np.float32), {}

    def step(self, action):
        self.left, self.steps = self.left - 1, self.steps + 1
        return np.array([self.left], np.float32), float(self.steps), self.left == 0, False, {}


@pytest.fixture(scope="module")
def info():
    flags = np.zeros(2, bool)
    episode = {"observations": np.zeros((3, 1)), "actions": np.zeros((2, 1)), "rewards": np.zeros(2)}
    return OfflineDataset.from_episodes(
        [episode | {"terminations": flags, "truncations": flags}],
        observation_space=Countdown.observation_space,
        action_space=Countdown.action_space,
    ).info


def policy(name, info):
    torch.manual_seed(0)
    method = METHODS[name].method_class(info)(Dimensions(1, 1), METHODS[name].config_class()(hidden_width=8))
    return BaselinePolicy(name, method, Scaling.of(info, torch.tensor([2.0]), torch.tensor([4.0])), info)


def test_values_and_returns_by_hand(info):
    acting, discount, scale, shift = policy("sac", info), 0.5, 2.0, -1.0
    check = ValueCheck(acting, discount, scale, shift)
    episodes = evaluate(acting, lambda: TimeLimit(Countdown(), 3), episodes=4, num_envs=2, observers=[check]).episodes
    numbers = check.numbers(episodes)
    # Episodes of 1, 2 and 3 steps end; the fourth is cut off after 3 of its 4.
    seen = [2 * 1 - 1, 2 * 2 - 1, 2 * 3 - 1]
    returns = [sum(discount**k * seen[k] for k in range(steps)) for steps in (1, 2, 3, 3)]
    assert numbers["discounted_return"] == pytest.approx(np.mean(returns))
    assert numbers["cut_weight"] == pytest.approx(discount**3 / 4)
    starts = (torch.arange(1.0, 5)[:, None] - 2) / 4
    with torch.no_grad():
        q = acting.method.critic(starts, acting.method.act(starts)).amin(0)
    assert numbers["predicted_value"] == pytest.approx(q.mean().item(), rel=1e-5)


def test_a_method_without_a_q_predicts_nothing(info):
    cloning = policy("bc", info)
    check = ValueCheck(cloning, 0.9, 1.0, 0.0)
    episodes = evaluate(cloning, lambda: TimeLimit(Countdown(), 3), episodes=2, observers=[check]).episodes
    assert check.numbers(episodes) == {}
