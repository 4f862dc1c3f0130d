import copy

import pytest
import torch
from torch.nn import functional

from trajplan.models.critics import DiscreteTwinQ, TwinQ, Value, make_critic, target_of, value_and_entropy
from trajplan.models.networks import (
    CACHED_ROWS,
    Dimensions,
    EnsembleMLP,
    learn_in_bf16,
    mlp,
    polyak_update,
    start_near_zero,
    start_orthogonal,
)
from trajplan.models.policies import make_policy

CONTINUOUS, DISCRETE, HIDDEN = Dimensions(3, 2), Dimensions(3, 1, 4), (8, 16)


def by_hand(ensemble: EnsembleMLP, member: int, x: torch.Tensor) -> torch.Tensor:
    for number in range(len(ensemble.weights)):
        x = functional.linear(x, ensemble.weights[number][member].T, ensemble.biases[number][member, 0])
        x = x if number == len(ensemble.weights) - 1 else x.relu()
    return x


def test_the_ensemble_is_its_members_one_by_one():
    torch.manual_seed(0)
    ensemble = EnsembleMLP(3, 5, HIDDEN, 2)
    x = torch.randn(3, 7, 5)
    for member in range(3):
        torch.testing.assert_close(ensemble(x)[member], by_hand(ensemble, member, x[member]))
        torch.testing.assert_close(ensemble(x[0])[member], by_hand(ensemble, member, x[0]))
    first, second = ensemble(x[0])[:2]
    assert not torch.allclose(first, second)


def test_many_rows_are_valued_as_few_and_give_the_same_gradients():
    torch.manual_seed(0)
    ensemble = EnsembleMLP(3, 5, HIDDEN, 2).double()
    x = torch.randn(3, 2 * CACHED_ROWS + 5, 5, dtype=torch.float64)
    chosen = torch.tensor([2, 0])

    def values_and_gradients(*parts: torch.Tensor) -> list[torch.Tensor]:
        values = torch.cat([ensemble(part[:2], chosen) for part in parts], dim=-2)
        ensemble.zero_grad()
        values.square().sum().backward()
        return [values, *(parameter.grad for parameter in ensemble.parameters())]

    torch.testing.assert_close(values_and_gradients(x), values_and_gradients(*x.split(100, dim=-2)))
    torch.testing.assert_close(ensemble(x[0])[1], by_hand(ensemble, 1, x[0]))


@pytest.mark.parametrize("rows", [7, 2 * CACHED_ROWS + 5])
@pytest.mark.parametrize("make", [lambda: mlp(5, (32, 32, 32), 2), lambda: EnsembleMLP(2, 5, (32, 32, 32), 2)])
def test_bf16_is_for_hidden_layers_and_for_learning(make, rows):
    torch.manual_seed(0)
    network, x = make(), torch.randn(rows, 5)

    def values_and_gradients():
        network.zero_grad()
        values = network(x)
        values.mean().backward()
        return [values, *(parameter.grad for parameter in network.parameters())]

    precise = values_and_gradients()
    learn_in_bf16(network)
    narrow = values_and_gradients()
    assert {tensor.dtype for tensor in narrow} == {torch.float32}
    assert not torch.equal(narrow[0], precise[0])
    for one, other in zip(narrow, precise, strict=True):
        assert (one - other).norm() < 0.05 * other.norm()
    assert torch.equal(network.eval()(x), precise[0])


def test_a_network_without_hidden_products_stays_as_it_is():
    ensemble, x = EnsembleMLP(2, 5, (8,), 2), torch.randn(7, 5)
    precise = ensemble(x)
    learn_in_bf16(ensemble)
    assert torch.equal(ensemble(x), precise)


def test_members_start_in_the_range_of_a_linear_layer():
    torch.manual_seed(0)
    ensemble = EnsembleMLP(2, 100, (50,), 1)
    assert 0.09 < ensemble.weights[0].abs().max() <= 0.1
    assert ensemble.biases[0].abs().max() <= 0.1


def test_an_orthogonal_start_has_its_gains_as_singular_values():
    torch.manual_seed(0)
    ensemble = EnsembleMLP(2, 5, HIDDEN, 3)
    start_orthogonal(ensemble)
    assert not any(bias.any() for bias in ensemble.biases)
    for weight in ensemble.weights:
        values = torch.linalg.svdvals(weight)
        torch.testing.assert_close(values, torch.full_like(values, 0.01 if weight.shape[-1] == 3 else 2**0.5))
    assert not torch.equal(ensemble.weights[0][0], ensemble.weights[0][1])


def test_a_start_near_zero_scales_the_last_layer_alone():
    torch.manual_seed(0)
    network = mlp(5, HIDDEN, 3)
    hidden = copy.deepcopy(network[:-1])
    start_near_zero(network)
    assert not network[-1].bias.any()
    bound = 0.01 * (6 / (HIDDEN[-1] + 3)) ** 0.5
    assert 0.8 * bound < network[-1].weight.abs().max() <= bound
    torch.testing.assert_close(network[:-1].state_dict(), hidden.state_dict())


def test_candidate_actions_are_valued_as_one_by_one():
    torch.manual_seed(0)
    critic = TwinQ(CONTINUOUS, HIDDEN)
    observations, actions = torch.randn(5, 3), torch.randn(4, 5, 2)
    values = critic(observations, actions)
    assert values.shape == (2, 4, 5)
    for candidate in range(4):
        torch.testing.assert_close(values[:, candidate], critic(observations, actions[candidate]))
    assert critic(observations, actions[0]).shape == (2, 5)


def test_the_discrete_critic_picks_the_actions_value():
    torch.manual_seed(0)
    critic = make_critic(DISCRETE, HIDDEN)
    assert isinstance(critic, DiscreteTwinQ)
    observations, actions = torch.randn(5, 3), torch.tensor([[0.0], [3.0], [1.0], [2.0], [3.0]])
    values = critic.values(observations)
    for row, action in enumerate(actions[:, 0].int().tolist()):
        assert torch.equal(critic(observations, actions)[:, row], values[:, row, action])


def test_polyak_update_moves_the_target_by_a_share_and_no_gradient_reaches_it():
    torch.manual_seed(0)
    source = Value(CONTINUOUS, HIDDEN)
    target = target_of(source)
    before = [p.clone() for p in target.parameters()]
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1)
    polyak_update(target, source, 0.25)
    for old, new in zip(before, target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
        assert not new.requires_grad


def test_the_value_of_a_policy_is_exact_for_discrete_actions_and_of_one_sample_else():
    torch.manual_seed(0)
    observations = torch.randn(5, 3)
    critic, policy = make_critic(DISCRETE, HIDDEN), make_policy("squashed", DISCRETE, HIDDEN)
    value, entropy = value_and_entropy(critic, observations, policy(observations))
    every = torch.stack([critic(observations, torch.full((5, 1), float(a))).min(0).values for a in range(4)], dim=1)
    distribution = torch.distributions.Categorical(logits=policy.network(observations))
    torch.testing.assert_close(value, (distribution.probs * every).sum(1))
    torch.testing.assert_close(entropy, distribution.entropy())
    critic, policy = make_critic(CONTINUOUS, HIDDEN), make_policy("squashed", CONTINUOUS, HIDDEN)
    torch.manual_seed(1)
    value, entropy = value_and_entropy(critic, observations, policy(observations))
    torch.manual_seed(1)
    actions, log_prob = policy(observations).sample()
    assert torch.equal(value, critic(observations, actions).min(0).values)
    assert torch.equal(entropy, -log_prob)
