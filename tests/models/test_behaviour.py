import pytest
import torch

from trajplan.models.behaviour import BehaviourPrior


def prior(members=3, elites=2):
    torch.manual_seed(0)
    return BehaviourPrior(3, 2, members, elites, (8,), 5)


def test_members_are_asked_together_or_by_number():
    made, observations, before = prior(), torch.randn(6, 3), torch.rand(6, 2) * 2 - 1
    actions, values = made.actions(observations, before), made.values(observations, before)
    assert actions.shape == (3, 6, 2)
    assert values.shape == (3, 6)
    assert actions.abs().max() <= 1
    chosen = torch.tensor([2, 0])
    torch.testing.assert_close(made.actions(observations, before, chosen), actions[chosen])
    torch.testing.assert_close(made.values(observations, before, chosen), values[chosen])


def test_the_loss_is_the_squared_error_of_actions_and_of_standardised_sums():
    made = prior()
    inputs, targets = torch.randn(50, 5), torch.rand(50, 3) * 2 - 1
    targets[:, 2] = 100 + 30 * torch.randn(50)
    made.fit_scales(inputs, targets)
    assert made.value_mean.item() == pytest.approx(targets[:, 2].mean().item(), rel=1e-5)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0, correction=0)
    actions = (made.policies(scaled) - targets[:, :2]).square().mean((1, 2))
    values = (made.values(inputs[:, :3], inputs[:, 3:]) - targets[:, 2]) / targets[:, 2].std(correction=0)
    loss = made.losses(inputs, targets, torch.zeros(50, dtype=torch.bool))
    torch.testing.assert_close(loss, actions + values.square().mean(1), rtol=1e-4, atol=1e-4)


def test_an_input_that_never_changes_is_not_blown_up():
    made = prior()
    inputs, targets = torch.randn(20, 5), torch.zeros(20, 3)
    inputs[:, 4] = 3.0
    made.fit_scales(inputs, targets)
    assert made.input_std[4] == 1
    assert made.losses(inputs, targets, torch.zeros(20)).isfinite().all()
