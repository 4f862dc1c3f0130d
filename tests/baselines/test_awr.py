import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces

from trajplan.baselines.awac import AWAC, AWACConfig
from trajplan.baselines.awr import AWR, AWRConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.data.transitions import Batch
from trajplan.models.networks import Dimensions

RATES = {"hidden_layers": 1, "hidden_width": 16, "actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2}


def bandit():
    """One state, three actions taken in shares of 5/8, 2/8 and 1/8, each ending the episode with its own reward."""
    actions = torch.tensor([0.0] * 5 + [1.0] * 2 + [2.0])
    rewards, one = torch.tensor([0.0, 0.5, 1.0])[actions.long()], torch.ones(8, 2)
    return Batch(one, actions[:, None], rewards, one, torch.ones(8).bool(), rewards, torch.zeros(8), one)


@pytest.mark.parametrize("name", ["awr", "awac"])
def test_the_weights_give_the_policy_that_is_best_within_its_distance_of_the_data(name):
    temperature, behaviour, rewards = 0.5, np.array([5, 2, 1]) / 8, np.array([0.0, 0.5, 1.0])
    torch.manual_seed(0)
    if name == "awr":
        config = AWRConfig(temperature=temperature, standardize_advantages=False, **RATES)
        method = AWR(Dimensions(2, 1, 3), config)
    else:
        method = AWAC(Dimensions(2, 1, 3), AWACConfig(temperature=temperature, **RATES))
    batch = bandit()
    for _ in range(400):
        method.update(batch)
    with torch.no_grad():
        policy = method.policy(torch.ones(1, 2)).log_probs.exp()[0].numpy().astype(np.float64)

    def objective(p):
        return p @ rewards - temperature * (p * np.log(p / behaviour)).sum()

    steps = np.arange(0.02, 1, 0.02)
    grid = [np.array([a, b, 1 - a - b]) for a, b in itertools.product(steps, steps) if a + b < 0.99]
    best = max(grid, key=objective)
    # The best of all policies on a grid, which is neither the data's nor the greedy one.
    assert objective(policy) > objective(best) - 1e-3
    np.testing.assert_allclose(policy, best, atol=0.03)
    assert np.abs(best - behaviour).max() > 0.2
    assert best.max() < 0.9


@pytest.mark.parametrize("ended", [True, False])
def test_a_time_limit_is_no_end_of_the_returns(ended):
    # The same observation for ever, and a reward of 1 each step: V is 10 for a discount of 0.9, however soon an
    # episode is cut off; where it really ends after 3 steps, it is what is left on the average.
    flags = np.zeros((2, 3), bool)
    flags[0 if ended else 1, -1] = True
    episode = {
        "observations": np.ones((4, 1), np.float32),
        "actions": np.zeros((3, 1), np.float32),
        "rewards": np.ones(3, np.float32),
        "terminations": flags[0],
        "truncations": flags[1],
    }
    dataset = OfflineDataset.from_episodes([episode], id="loop", action_space=spaces.Box(-1, 1, (1,)))
    batch = dataset.transitions(discount=0.9).gather(torch.arange(3))
    torch.manual_seed(0)
    method = AWR(Dimensions(1, 1), AWRConfig(discount=0.9, **RATES))
    for number in range(400):
        method.optimizers["value"].param_groups[0]["lr"] = 3e-2 if number < 300 else 3e-3
        method.update(batch)
    value = method.value(torch.ones(1, 1)).item()
    assert value == pytest.approx((2.71 + 1.9 + 1) / 3 if ended else 10, rel=0.02)


def test_advantages_are_standardised_and_their_weights_clipped():
    torch.manual_seed(0)
    advantages, batch = torch.tensor([1.0, 2.0, 3.0, 6.0, 0.0, 1.0, 4.0, 7.0]), bandit()
    method = AWR(Dimensions(2, 1, 3), AWRConfig(temperature=0.5, **RATES))
    scores = (advantages.numpy() - 3.0) / advantages.numpy().std()
    _, metrics = method.actor_loss(batch, advantages)
    assert metrics["actor/weight_mean"].item() == pytest.approx(np.exp(scores / 0.5).clip(max=20).mean(), rel=1e-4)
    # Of any scale and level: the same weights.
    _, other = method.actor_loss(batch, 1000 * advantages - 50)
    assert other["actor/weight_mean"].item() == pytest.approx(metrics["actor/weight_mean"].item(), rel=1e-3)
    hard = AWR(Dimensions(2, 1, 3), AWRConfig(max_weight=2.0, standardize_advantages=False, **RATES))
    _, metrics = hard.actor_loss(batch, advantages)
    assert 1 < metrics["actor/weight_mean"] <= 2
