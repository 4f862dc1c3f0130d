import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from trajplan.models.distributions import BOUND
from trajplan.models.networks import Dimensions
from trajplan.models.policies import (
    BoundedGaussian,
    CategoricalPolicy,
    Deterministic,
    SquashedGaussian,
    make_policy,
)

CONTINUOUS = Dimensions(3, 2)
DISCRETE = Dimensions(3, 1, 5)
HIDDEN = (8, 8)


@pytest.fixture
def observations():
    torch.manual_seed(0)
    return torch.randn(6, 3)


def spread(policy):
    """Weights large enough for means and deviations to differ between observations."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2)
    return policy


def test_squashed_log_prob_is_that_of_torchs_transformed_distribution(observations):
    policy = spread(SquashedGaussian(CONTINUOUS, HIDDEN)).double()
    observations = observations.double()
    actions = torch.rand(6, 2, dtype=torch.float64) * 1.9 - 0.95
    made = policy(observations)
    squashed = TransformedDistribution(Normal(made.mean, made.log_std.exp()), TanhTransform())
    torch.testing.assert_close(made.log_prob(actions), squashed.log_prob(actions).sum(-1))


def test_squashed_density_integrates_to_one():
    policy = SquashedGaussian(Dimensions(1, 1), (4,)).double()
    edge = torch.linspace(-BOUND, BOUND, 200_001, dtype=torch.float64)
    density = policy(torch.zeros(len(edge), 1, dtype=torch.float64)).log_prob(edge[:, None]).exp()
    assert torch.trapezoid(density, edge).item() == pytest.approx(1, abs=1e-3)


def test_samples_come_with_the_log_prob_of_their_actions(observations):
    for kind in ("squashed", "gaussian"):
        policy = make_policy(kind, CONTINUOUS, HIDDEN)
        with torch.no_grad():
            if kind == "gaussian":
                policy.log_std.fill_(-3)
            actions, log_prob = policy(observations).sample(4)
        inside = (actions.abs() < 0.99).all(-1)
        assert actions.shape == (4, 6, 2)
        assert inside.sum() > 10
        for candidate in range(4):
            again = policy(observations).log_prob(actions[candidate])
            keep = inside[candidate]
            torch.testing.assert_close(again[keep], log_prob[candidate][keep], atol=1e-3, rtol=1e-3)


def test_recorded_actions_on_the_bounds_have_finite_log_probs_and_gradients(observations):
    policy = SquashedGaussian(CONTINUOUS, HIDDEN)
    edge = torch.tensor([[1.0, -1.0]]).expand(6, 2)
    log_prob = policy(observations).log_prob(edge)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())
    torch.testing.assert_close(log_prob, policy(observations).log_prob(edge * BOUND))


def test_squashed_samples_far_in_the_tail_stay_finite():
    policy = SquashedGaussian(Dimensions(1, 1), (4,))
    with torch.no_grad():
        policy.network[-1].bias.copy_(torch.tensor([40.0, 0.0]))
    actions, log_prob = policy(torch.zeros(100, 1)).sample()
    assert actions.max() == 1
    assert torch.isfinite(log_prob).all()


def test_squashed_samples_pass_gradients_to_the_policy(observations):
    policy = SquashedGaussian(CONTINUOUS, HIDDEN)
    policy(observations).sample()[0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


def test_the_bounded_gaussian_has_a_bounded_mean_and_one_deviation_for_all_states(observations):
    policy = spread(spread(BoundedGaussian(CONTINUOUS, HIDDEN)))
    actions = torch.randn(6, 2) * 2
    mean = policy(100 * observations).mode
    assert mean.abs().max() <= 1
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-9.0, 4.0]))
    # Held to [-5, 2].
    expected = Independent(Normal(mean, torch.tensor([-5.0, 2.0]).exp()), 1).log_prob(actions)
    torch.testing.assert_close(policy(100 * observations).log_prob(actions), expected)


def test_the_deterministic_policy_is_as_likely_as_it_is_near(observations):
    policy = Deterministic(CONTINUOUS, HIDDEN)
    action = policy(observations).mode
    torch.testing.assert_close(policy(observations).log_prob(action + 0.5), torch.full((6,), -0.5))
    torch.testing.assert_close(policy(observations).sample()[0], action)


def test_the_categorical_policy_against_torchs(observations):
    policy = spread(CategoricalPolicy(DISCRETE, HIDDEN))
    actions = torch.tensor([[0.0], [4.0], [2.0], [1.0], [3.0], [4.0]])
    expected = torch.distributions.Categorical(logits=policy.network(observations))
    torch.testing.assert_close(policy(observations).log_prob(actions), expected.log_prob(actions[:, 0]))
    samples, log_prob = policy(observations).sample(20_000)
    assert samples.shape == (20_000, 6, 1)
    torch.testing.assert_close(log_prob[7], policy(observations).log_prob(samples[7]))
    share = (samples[:, 2, 0] == 3).float().mean().item()
    assert share == pytest.approx(expected.probs[2, 3].item(), abs=0.02)
    assert policy(observations).mode[:, 0].tolist() == expected.probs.argmax(-1).tolist()
    assert policy(observations).sample()[0].shape == (6, 1)


@pytest.mark.parametrize("kind", ["squashed", "gaussian", "deterministic"])
def test_every_action_lies_within_the_bounds(observations, kind):
    policy = spread(spread(make_policy(kind, CONTINUOUS, HIDDEN)))
    with torch.no_grad():
        for actions in (policy(50 * observations).mode, policy(50 * observations).sample(50)[0]):
            assert actions.abs().max() <= 1


def test_discrete_actions_make_every_policy_categorical():
    assert isinstance(make_policy("gaussian", DISCRETE, HIDDEN), CategoricalPolicy)
