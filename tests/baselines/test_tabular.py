"""IQL, AWAC and SAC on a problem small enough for dynamic programming: 3 states, 2 actions, two ways to end."""

import numpy as np
import pytest
import torch

from trajplan.baselines.awac import AWAC, AWACConfig
from trajplan.baselines.iql import IQL, IQLConfig, expectile_loss
from trajplan.baselines.sac import SAC, SACConfig
from trajplan.data.transitions import Batch
from trajplan.models.networks import Dimensions

DISCOUNT = 0.9
# State, action, reward, next state, terminal; the first is in the data twice, so that the behaviour is not uniform.
DATA = [
    (0, 0, 0.0, 1, False),
    (0, 0, 0.0, 1, False),
    (0, 1, 1.0, 2, False),
    (1, 0, 1.0, 0, True),
    (1, 1, 0.0, 0, False),
    (2, 0, 0.0, 0, True),
    (2, 1, -0.5, 1, False),
]
BEHAVIOUR = np.array([[2 / 3, 1 / 3], [0.5, 0.5], [0.5, 0.5]])
FAST = {"discount": DISCOUNT, "hidden_layers": 1, "hidden_width": 32, "tau": 0.2}
RATES = {"actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2}
STATES = torch.eye(3)


def data():
    state, action, reward, following, terminal = zip(*DATA, strict=True)
    return Batch(
        observations=STATES[list(state)],
        actions=torch.tensor(action, dtype=torch.float32)[:, None],
        rewards=torch.tensor(reward),
        next_observations=STATES[list(following)],
        terminations=torch.tensor(terminal),
    )


def backup(values):
    """Q (3, 2) of one step and then `values` (3,)."""
    q = np.zeros((3, 2))
    for state, action, reward, following, terminal in DATA:
        q[state, action] = reward + (0 if terminal else DISCOUNT * values[following])
    return q


def expectile(q, weights, level):
    """The root of sum w |level - 1(q < v)| (q - v), by bisection."""
    low, high = q.min(), q.max()
    for _ in range(60):
        v = (low + high) / 2
        slope = (weights * np.where(q < v, 1 - level, level) * (q - v)).sum()
        low, high = (v, high) if slope > 0 else (low, v)
    return v


def trained(method, updates=1200):
    batch = data()
    for number in range(updates):
        for name in method.optimizers.keys() - {"temperature"}:
            method.optimizers[name].param_groups[0]["lr"] = 1e-2 if number < updates * 2 / 3 else 1e-3
        method.update(batch)
    return method


@pytest.mark.parametrize(("level", "share"), [(0.5, 0.5), (0.7, 0.5), (0.9, 0.2)])
def test_the_expectiles_fixed_point_in_closed_form(level, share):
    # Of a coin with values 0 and 1: level * share * (1 - v) = (1 - level) * (1 - share) * v.
    expected = level * share / (level * share + (1 - level) * (1 - share))
    coin = (torch.arange(100) < 100 * share).double()
    v = torch.tensor(expected, dtype=torch.float64, requires_grad=True)
    expectile_loss(coin - v, level).backward()
    # The weights are float32, whatever the values.
    assert v.grad.item() == pytest.approx(0, abs=1e-7)
    for other in (expected - 0.05, expected + 0.05):
        assert expectile_loss(coin - other, level) > expectile_loss(coin - expected, level)


def test_iql_finds_the_fixed_point_of_dynamic_programming():
    torch.manual_seed(0)
    config = IQLConfig(expectile=0.8, beta=2.0, **FAST, **RATES)
    method = trained(IQL(Dimensions(3, 1, 2), config))
    values = np.zeros(3)
    for _ in range(300):
        q = backup(values)
        values = np.array([expectile(q[s], BEHAVIOUR[s], 0.8) for s in range(3)])
    policy = BEHAVIOUR * np.exp(2.0 * (q - values[:, None]))
    policy /= policy.sum(1, keepdims=True)
    with torch.no_grad():
        np.testing.assert_allclose(method.value(STATES), values, atol=0.02)
        np.testing.assert_allclose(method.critic.values(STATES), np.stack([q, q]), atol=0.02)
        np.testing.assert_allclose(method.policy(STATES).log_probs.exp(), policy, atol=0.02)
    # With this behaviour the mean would be another answer.
    assert np.abs(values - (BEHAVIOUR * q).sum(1)).max() > 0.1


def test_awac_finds_the_policy_that_is_best_within_its_distance_of_the_data():
    torch.manual_seed(0)
    config = AWACConfig(temperature=0.5, **FAST, **RATES)
    method = trained(AWAC(Dimensions(3, 1, 2), config))
    policy = BEHAVIOUR
    for _ in range(300):
        values = np.zeros(3)
        for _ in range(300):
            q = backup(values)
            values = (policy * q).sum(1)
        policy = BEHAVIOUR * np.exp((q - values[:, None]) / 0.5)
        policy /= policy.sum(1, keepdims=True)
    with torch.no_grad():
        np.testing.assert_allclose(method.critic.values(STATES), np.stack([q, q]), atol=0.02)
        np.testing.assert_allclose(method.policy(STATES).log_probs.exp(), policy, atol=0.02)
    assert np.abs(policy - BEHAVIOUR).max() > 0.1


@pytest.mark.parametrize("in_target", [True, False])
def test_sac_finds_the_fixed_point_of_soft_value_iteration(in_target):
    torch.manual_seed(0)
    temperature = 0.5
    config = SACConfig(entropy_in_target=in_target, temperature_learning_rate=1e-12, **FAST, **RATES)
    method = SAC(Dimensions(3, 1, 2), config)
    with torch.no_grad():
        method.log_temperature.fill_(np.log(temperature))
    trained(method)
    values = np.zeros(3)
    for _ in range(300):
        q = backup(values)
        policy = np.exp(q / temperature)
        policy /= policy.sum(1, keepdims=True)
        values = (policy * (q - in_target * temperature * np.log(policy))).sum(1)
    with torch.no_grad():
        np.testing.assert_allclose(method.critic.values(STATES), np.stack([q, q]), atol=0.02)
        np.testing.assert_allclose(method.policy(STATES).log_probs.exp(), policy, atol=0.02)


@pytest.mark.parametrize("method", ["iql", "awac"])
def test_advantage_weights_are_clipped(method):
    torch.manual_seed(0)
    dimensions, batch = Dimensions(3, 1, 2), data()
    if method == "iql":
        made = IQL(dimensions, IQLConfig(beta=50.0, max_weight=7.0, **FAST))
        _, metrics = made.actor_loss(batch, torch.full((len(DATA),), 10.0))
    else:
        made = AWAC(dimensions, AWACConfig(temperature=1e-6, max_weight=7.0, **FAST))
        _, metrics = made.actor_loss(batch, torch.full((len(DATA),), 10.0))
    assert 0 < metrics["actor/weight_mean"] <= 7
