import dataclasses
import math

import numpy as np
import pytest
import torch

from trajplan.baselines.cql import CQL, CQLConfig, DiscreteCQL, Penalty
from trajplan.baselines.sac import SAC, SACConfig
from trajplan.data.transitions import Batch
from trajplan.errors import ConfigError
from trajplan.models.conservative import candidate_actions, soft_maximum
from trajplan.models.critics import TwinQ
from trajplan.models.networks import Dimensions
from trajplan.models.policies import SquashedGaussian

CONTINUOUS, DISCRETE = Dimensions(3, 2), Dimensions(2, 1, 3)
SMALL = {"hidden_layers": 1, "hidden_width": 8}


@pytest.fixture
def batch():
    torch.manual_seed(3)
    ends = torch.arange(16) % 4 == 0
    return Batch(torch.randn(16, 3), torch.rand(16, 2) * 2 - 1, torch.randn(16), torch.randn(16, 3), ends)


def known_q(actions):
    """(..., A) -> (...)."""
    return (2 * torch.sin(4 * actions) + actions.square()).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_importance_weights_integrate_to_the_true_logsumexp(temperature):
    torch.manual_seed(0)
    policy = SquashedGaussian(Dimensions(1, 1), ())
    # At s around tanh(0.5) with deviation 1, at s' around tanh(-0.5) with deviation 1.2.
    with torch.no_grad():
        policy.network[0].weight.copy_(torch.tensor([[1.0], [-0.2]]))
        policy.network[0].bias.copy_(torch.tensor([-0.5, 0.2]))
    count = 40_000
    actions, log_density = candidate_actions(policy, torch.ones(1, 1), torch.zeros(1, 1), count)
    edge = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    expected = temperature * torch.trapezoid(torch.exp(known_q(edge[:, None]) / temperature), edge).log().item()
    q = known_q(actions)
    # All together, and each kind alone: every density stands where its actions do.
    assert soft_maximum(q, log_density, temperature).item() == pytest.approx(expected, abs=0.02)
    for kind in range(3):
        part = slice(kind * count, (kind + 1) * count)
        assert soft_maximum(q[part], log_density[part], temperature).item() == pytest.approx(expected, abs=0.03)
    # The densities at s and s' differ enough that confusing them would show.
    now, following = slice(count, 2 * count), slice(2 * count, 3 * count)
    assert abs(soft_maximum(q[following], log_density[now], temperature).item() - expected) > 0.2


def test_ten_candidates_are_without_bias_under_the_logarithm(batch):
    torch.manual_seed(0)
    policy = SquashedGaussian(CONTINUOUS, (8,))
    edge = torch.linspace(-1, 1, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(edge, edge)
    exact = torch.trapezoid(torch.trapezoid(known_q(grid).exp().view(401, 401), edge), edge).item()
    many = torch.cat([soft_maximum(known_q(a), d, 1.0) for a, d in (
        candidate_actions(policy, batch.observations, batch.next_observations, 10) for _ in range(100))])  # fmt: skip
    assert many.shape == (1600,)
    assert many.exp().mean().item() == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("raise_data", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_continuous_penalty_by_integration(batch, temperature, raise_data):
    torch.manual_seed(0)
    config = CQLConfig(candidates=4000, penalty_temperature=temperature, raise_data=raise_data, **SMALL)
    method = CQL(Dimensions(3, 1), config)
    with torch.no_grad():
        # Q is nearly 0 at the start; here it is steep enough that the wrong candidates or densities would show.
        method.critic.networks.weights[-1].mul_(1000)
        method.policy.shift_log_std(1.0)
    few = Batch(
        *(value[:6] for value in (batch.observations, batch.actions[:, :1], batch.rewards)),
        batch.next_observations[:6],
        batch.terminations[:6],
    )
    edge = torch.linspace(-1, 1, 4001)
    q = method.critic(few.observations, edge[:, None, None].expand(-1, 6, 1))
    assert (q.amax(1) - q.amin(1)).mean() > 1
    integral = temperature * torch.trapezoid((q / temperature).exp(), edge, dim=1).log()
    expected = integral - method.critic(few.observations, few.actions) if raise_data else integral
    _, metrics = method.critic_loss(few)
    assert metrics["critic/penalty"].item() == pytest.approx(expected.mean().item(), abs=0.02)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_discrete_penalty_by_hand(temperature):
    config = CQLConfig(alpha=2.0, discount=0.5, penalty_temperature=temperature, **SMALL)
    method = DiscreteCQL(DISCRETE, config)
    table = torch.tensor([[[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], [[2.0, 1.0, 0.0], [1.0, 1.0, 1.0]]])
    method.critic.values = lambda observations: table
    method.target.values = lambda observations: 10 * table
    batch = Batch(
        torch.zeros(2, 2), torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, -1.0]), torch.zeros(2, 2),
        torch.tensor([False, True]),
    )  # fmt: skip
    loss, metrics = method.critic_loss(batch)
    # By the smaller Q, 1, 1, 0, the first action is the best of the first s'; its smaller target value is 10.
    targets = np.array([1 + 0.5 * 10, -1])
    data = np.array([[2.0, 3.0], [1.0, 1.0]])
    error = ((data - targets) ** 2).mean(1).sum()
    soft = temperature * np.log(np.exp(table.numpy() / temperature).sum(-1))
    penalty = (soft - data).mean(1).sum()
    assert loss.item() == pytest.approx(error + 2 * penalty, rel=1e-6)
    assert metrics["critic/penalty"].item() == pytest.approx(penalty / 2, rel=1e-6)
    assert method.act(torch.zeros(2, 2)).tolist() == [[0.0], [2.0]]


def test_discrete_cql_finds_the_penalised_values():
    # One state and three actions taken in shares of 1/2, 1/4 and 1/4, each of which ends the episode: the loss is
    # sum share (Q - r)^2 + alpha (logsumexp Q - sum share Q), and its minimum is found by Newton's method.
    shares, rewards, alpha = np.array([0.5, 0.25, 0.25]), np.array([1.0, 2.0, 0.0]), 0.6
    q = rewards.copy()
    for _ in range(50):
        soft = np.exp(q) / np.exp(q).sum()
        slope = 2 * shares * (q - rewards) + alpha * (soft - shares)
        q = q - np.linalg.solve(np.diag(2 * shares + alpha * soft) - alpha * np.outer(soft, soft), slope)
    torch.manual_seed(0)
    config = CQLConfig(alpha=alpha, hidden_layers=1, hidden_width=32, critic_learning_rate=1e-2)
    method = DiscreteCQL(DISCRETE, config)
    actions = torch.tensor([0.0, 0.0, 1.0, 2.0])
    one = torch.ones(4, 2)
    batch = Batch(one, actions[:, None], torch.from_numpy(rewards).float()[actions.long()], one, torch.ones(4).bool())
    for _ in range(400):
        method.update(batch)
    with torch.no_grad():
        np.testing.assert_allclose(method.critic.values(one[:1])[:, 0], np.stack([q, q]), atol=1e-3)
    assert np.abs(q - rewards).max() > 0.1


def test_without_a_penalty_it_is_soft_actor_critic_without_entropy_in_the_target(batch):
    rates = {"actor_learning_rate": 3e-5, "temperature_learning_rate": 3e-5}
    made = CQL(CONTINUOUS, CQLConfig(alpha=0.0, hidden_width=8))
    plain = SAC(CONTINUOUS, SACConfig(entropy_in_target=False, hidden_width=8, hidden_layers=3, **rates))
    plain.load_state_dict(made.state_dict())
    for method in (made, plain):
        torch.manual_seed(0)
        for _ in range(5):
            method.update(batch)
    assert made.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(weight, plain.state_dict()[name]) for name, weight in made.state_dict().items())


def test_training_starts_with_q_near_0_and_a_narrow_policy_around_0(batch):
    torch.manual_seed(0)
    method = CQL(CONTINUOUS, CQLConfig())
    with torch.no_grad():
        q = method.critic(batch.observations, batch.actions)
        policy = method.policy(batch.observations)
        assert torch.equal(method.target(batch.observations, batch.actions), q)
    assert 0 < q.abs().max() < 0.1
    assert policy.mean.abs().max() < 0.1
    torch.testing.assert_close(policy.log_std, torch.full_like(policy.log_std, -1), atol=0.1, rtol=0)


def loss_of(batch, **changes):
    torch.manual_seed(0)
    method = CQL(CONTINUOUS, CQLConfig(**SMALL | changes))
    torch.manual_seed(1)
    return method.critic_loss(batch)


def test_the_form_that_does_not_raise_the_datas_q_leaves_out_just_that(batch):
    raised, metrics = loss_of(batch, alpha=4.0)
    lowered, _ = loss_of(batch, alpha=4.0, raise_data=False)
    assert (lowered - raised).item() == pytest.approx(4 * 2 * metrics["critic/q_mean"].item(), rel=1e-4)


def test_the_penalty_is_computed_in_one_pass_and_its_gradient_reaches_the_critic_alone(batch, monkeypatch):
    torch.manual_seed(0)
    method = CQL(CONTINUOUS, CQLConfig(**SMALL))
    shapes = []
    forward = TwinQ.forward

    def count(self, observations, actions):
        shapes.append(tuple(actions.shape))
        return forward(self, observations, actions)

    monkeypatch.setattr(TwinQ, "forward", count)
    loss, _ = method.critic_loss(batch)
    # The target's at s', and the data's action with 3 x 10 candidates at s.
    assert shapes == [(16, 2), (31, 16, 2)]
    loss.backward()
    assert all(p.grad is not None for p in method.critic.parameters())
    assert all(p.grad is None for p in [*method.policy.parameters(), *method.target.parameters()])


def test_a_transitions_penalty_counts_no_less_than_asked():
    penalty = Penalty(CQLConfig(alpha=1.0, min_penalty=-1.0))
    maximum, data_q = torch.tensor([[0.0, 5.0], [2.0, 2.0]]), torch.tensor([[9.0, 2.0], [2.5, 1.0]])
    assert penalty(maximum, data_q)[0].item() == pytest.approx((-1 + 3) / 2 + (-0.5 + 1) / 2)


def test_alpha_moves_towards_the_target_gap():
    for gap, direction in ((0.5, 1), (4.0, -1)):
        penalty = Penalty(CQLConfig(alpha=5.0, target_gap=gap))
        data_q = torch.zeros(2, 4, requires_grad=True)
        loss, metrics = penalty(torch.full((2, 4), 2.0), data_q)
        loss.backward()
        assert metrics["critic/alpha"].item() == pytest.approx(5)
        # A step against the gradient raises alpha where the penalty, 2, is above the gap.
        assert -direction * penalty.log_alpha.grad > 0
        assert data_q.grad.sum().item() == pytest.approx(-2 * 5)


def test_an_adjusted_alpha_holds_the_gap():
    # The penalty is least, the entropy of the data's actions, where Q is their log-probability: 1.04 here.
    torch.manual_seed(0)
    gap = 1.3
    config = CQLConfig(alpha=1.0, target_gap=gap, hidden_layers=1, hidden_width=32, critic_learning_rate=1e-2)
    method = DiscreteCQL(DISCRETE, config)
    one, actions = torch.ones(4, 2), torch.tensor([[0.0], [0.0], [1.0], [2.0]])
    batch = Batch(one, actions, actions[:, 0], one, torch.ones(4).bool())
    for _ in range(500):
        metrics = method.update(batch)
    assert metrics["critic/penalty"].item() == pytest.approx(gap, abs=0.02)


def test_the_best_of_several_next_actions_sets_the_target(batch):
    torch.manual_seed(0)
    method = CQL(CONTINUOUS, CQLConfig(target_actions=50, **SMALL))
    ended = dataclasses.replace(batch, terminations=torch.ones(16).bool())
    torch.testing.assert_close(method.targets(ended), batch.rewards)
    best = method.targets(batch)
    one = torch.stack([SAC.targets(method, batch) for _ in range(20)])
    assert (best >= one.mean(0) - 1e-5).all()
    assert (best[~batch.terminations] > one.mean(0)[~batch.terminations]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -1.0}, r"alpha is -1\.0; it must be 0 or more"),
        ({"alpha": 0.0, "target_gap": 1.0}, r"alpha is 0\.0; it must be above 0 to be adjusted"),
        ({"target_gap": math.nan}, "target_gap is nan"),
        ({"candidates": 0}, "candidates is 0; it must be at least 1"),
        ({"penalty_temperature": 0.0}, "penalty_temperature is 0"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        CQLConfig(**changes)


@pytest.mark.parametrize(("method", "dimensions"), [(CQL, CONTINUOUS), (DiscreteCQL, DISCRETE)])
def test_q_may_have_more_layers_than_the_policy(method, dimensions):
    deeper = method(dimensions, CQLConfig(critic_layers=4, **SMALL))
    assert len(deeper.critic.networks.weights) == len(deeper.target.networks.weights) == 4 + 1
    assert len(method(dimensions, CQLConfig(**SMALL)).critic.networks.weights) == 1 + 1
    if method is CQL:
        assert sum(isinstance(layer, torch.nn.Linear) for layer in deeper.policy.network) == 1 + 1
    with pytest.raises(ConfigError, match="critic_layers"):
        CQLConfig(critic_layers=0)


def test_settings_that_discrete_actions_have_no_use_for_are_refused():
    for name, value in {"candidates": 5, "target_actions": 2, "entropy_in_target": True, "target_entropy": 1.0}.items():
        with pytest.raises(ConfigError, match=f"{name} is {value}; it must be left out for Discrete actions"):
            DiscreteCQL(DISCRETE, CQLConfig(**{name: value}))
    with pytest.raises(ConfigError, match=r"actor_learning_rate is 0\.1; it must be left out"):
        DiscreteCQL(DISCRETE, CQLConfig(actor_learning_rate=0.1))
