import dataclasses

import pytest
import torch

from trajplan.baselines.combo import COMBO, COMBOConfig
from trajplan.baselines.sac import SAC
from trajplan.data.transitions import Batch
from trajplan.errors import ConfigError
from trajplan.models.networks import Dimensions

DIMENSIONS = Dimensions(3, 1)
SMALL = {"hidden_layers": 1, "hidden_width": 16}


def method(**settings):
    torch.manual_seed(0)
    return COMBO(DIMENSIONS, COMBOConfig(**SMALL | settings))


def batch(rows=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    observations, following = torch.randn(2, rows, 3, generator=generator)
    actions = torch.rand(rows, 1, generator=generator) * 2 - 1
    rewards = torch.randn(rows, generator=generator)
    return Batch(observations, actions, rewards, following, torch.zeros(rows, dtype=torch.bool))


def sure(made):
    """Make the policy as good as deterministic."""
    with torch.no_grad():
        made.policy.network[-1].weight[1:] = 0
        made.policy.network[-1].bias[1:] = -20
    return made


@pytest.mark.parametrize("rho", ["mix", "model"])
def test_the_penalty_vanishes_when_model_and_data_agree(rho):
    made = sure(method(rho=rho, rho_actions="policy"))
    half = batch(16)
    actions = made.act(half.observations).detach()
    # The model visits the data's states, and the data acts as the policy does.
    both = {name: torch.cat([value, value]) for name, value in vars(half).items() if value is not None}
    agreed = Batch(**both | {"actions": torch.cat([actions, actions])})
    penalty = made.penalty(agreed, 16)
    assert penalty.abs().max() < 1e-6
    elsewhere = torch.cat([half.observations, half.observations + torch.tensor([5.0, 0, 0])])
    assert made.penalty(dataclasses.replace(agreed, observations=elsewhere), 16).abs().max() > 1e-2


def test_the_penalty_by_hand_with_the_policys_actions():
    mixed = batch()
    for rho, first in (("mix", 0), ("model", 10)):
        made = sure(method(rho=rho, rho_actions="policy"))
        states = mixed.observations[first:]
        expected = made.critic(states, made.act(states)).mean(-1)
        expected -= made.critic(mixed.observations[:10], mixed.actions[:10]).mean(-1)
        torch.testing.assert_close(made.penalty(mixed, 10), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("rho", "first"), [("mix", 0), ("model", 3)])
def test_the_penalty_by_integration_with_actions_of_high_q(rho, first):
    made, mixed = method(candidates=4000, rho=rho), batch(6)
    states = mixed.observations[first:]
    grid = torch.linspace(-1, 1, 4001)[:, None, None].expand(-1, len(states), 1)
    q = made.critic(states, grid)
    integral = torch.trapezoid(q.exp(), dx=2 / 4000, dim=1).log()
    expected = integral.mean(-1) - made.critic(mixed.observations[:3], mixed.actions[:3]).mean(-1)
    torch.testing.assert_close(made.penalty(mixed, 3), expected, atol=5e-3, rtol=0)


def test_only_the_datas_rows_are_raised():
    made, mixed = sure(method(rho_actions="policy")), batch()
    changed = mixed.actions.clone()
    changed[10:] *= -0.5
    torch.testing.assert_close(made.penalty(mixed, 10), made.penalty(dataclasses.replace(mixed, actions=changed), 10))
    changed[:10] *= -0.5
    assert not torch.allclose(made.penalty(mixed, 10), made.penalty(dataclasses.replace(mixed, actions=changed), 10))


def test_beta_weighs_the_penalty_and_without_it_it_is_soft_actor_critic():
    losses = {}
    for beta in (0.0, 1.0, 3.0):
        made = sure(method(beta=beta, rho_actions="policy"))
        torch.manual_seed(1)
        losses[beta], metrics = made.critic_loss(batch())
        assert ("critic/penalty" in metrics) == (beta > 0)
    torch.manual_seed(1)
    plain, _ = SAC.critic_loss(sure(method(beta=3.0, rho_actions="policy")), batch())
    penalty = method(rho_actions="policy")
    penalty = sure(penalty).penalty(batch(), 16).sum()
    torch.testing.assert_close(losses[1.0] - losses[0.0], penalty, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(losses[3.0] - losses[0.0], 3 * penalty, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(losses[0.0], plain)


def test_it_lowers_q_where_only_the_model_goes():
    made, mixed = method(beta=5.0, critic_learning_rate=1e-2), batch(64)
    away = mixed.observations.clone()
    away[32:, 0] += 4
    mixed = dataclasses.replace(mixed, observations=away, rewards=torch.zeros(64))
    for _ in range(150):
        made.update(mixed)
    with torch.no_grad():
        q = made.critic(mixed.observations, mixed.actions).mean(0)
    assert q[32:].mean() < q[:32].mean() - 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -1.0}, "beta is -1.0; it must be 0 or more"),
        ({"candidates": 0}, "candidates is 0"),
        ({"real_ratio": 0.0}, r"real_ratio is 0.0; it must lie in \(0, 1\]"),
        ({"model_elites": 9}, "model_members is 7; it must be at least model_elites"),
        ({"model_held_out": 1.0}, "model_held_out is 1.0"),
        ({"rollout_length": 0}, "rollout_length is 0"),
        ({"model_max_epochs": 0}, "model_max_epochs is 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        COMBOConfig(**settings)
