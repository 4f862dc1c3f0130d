import dataclasses
import math

import pytest
import torch

from trajplan.baselines.sac import SAC, SACConfig, target_entropy
from trajplan.data.transitions import Batch
from trajplan.errors import ConfigError
from trajplan.models.networks import Dimensions

SMALL = {"hidden_layers": 1, "hidden_width": 16}


@pytest.fixture
def batch():
    torch.manual_seed(3)
    ends = torch.arange(64) % 4 == 0
    return Batch(torch.randn(64, 3), torch.rand(64, 2) * 2 - 1, torch.randn(64), torch.randn(64, 3), ends)


def test_targets_by_hand(batch):
    for in_target in (True, False):
        torch.manual_seed(0)
        method = SAC(Dimensions(3, 2), SACConfig(entropy_in_target=in_target, discount=0.9, **SMALL))
        with torch.no_grad():
            method.log_temperature.fill_(math.log(0.3))
            torch.manual_seed(1)
            targets = method.targets(batch)
            torch.manual_seed(1)
            actions, log_prob = method.policy(batch.next_observations).sample()
            values = method.target(batch.next_observations, actions).min(0).values
        values = values - 0.3 * log_prob * in_target
        expected = batch.rewards + 0.9 * values * (~batch.terminations)
        torch.testing.assert_close(targets, expected)


def test_the_entropy_is_held_at_its_target(batch):
    torch.manual_seed(0)
    level = dataclasses.replace(batch, rewards=torch.zeros(64), terminations=torch.ones(64).bool())
    rates = {"actor_learning_rate": 1e-2, "temperature_learning_rate": 3e-2}
    method = SAC(Dimensions(3, 2), SACConfig(**rates, **SMALL))
    measured = [method.update(level)["actor/entropy"].item() for _ in range(400)]
    # Where all actions are worth the same, entropy is all that counts: from the widest policy's to the target's.
    assert max(measured[:100]) > 0.5
    assert sum(measured[-50:]) / 50 == pytest.approx(-2, abs=0.3)
    assert method.log_temperature.item() < -1


def test_default_target_entropies():
    assert target_entropy(Dimensions(3, 6)) == -6
    assert target_entropy(Dimensions(3, 1, 4)) == pytest.approx(0.98 * math.log(4))
    assert SAC(Dimensions(3, 6), SACConfig(target_entropy=-2.5, **SMALL)).target_entropy == -2.5
    with pytest.raises(ConfigError, match="target_entropy is nan"):
        SACConfig(target_entropy=math.nan)


def test_the_policys_loss_adds_nothing_to_the_critics_gradient(batch):
    gradients = []
    for whole in (True, False):
        torch.manual_seed(0)
        method = SAC(Dimensions(3, 2), SACConfig(**SMALL))
        torch.manual_seed(1)
        if whole:
            method.update(batch)
        else:
            method.critic_loss(batch)[0].backward()
        gradients.append([parameter.grad for parameter in method.critic.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
