import math

import pytest
import torch
from torch.distributions import Normal

from trajplan.models.dynamics import DynamicsEnsemble, Prediction, uncertainty_of


def ensemble(members=3, elites=2, terminal_head=False, hidden=(16, 8)):
    torch.manual_seed(0)
    return DynamicsEnsemble(3, 2, members, elites, hidden, terminal_head)


def data(rows, seed=1):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 5, generator=generator) * torch.tensor([1.0, 10, 0.1, 1, 1]) + 3
    targets = torch.randn(rows, 4, generator=generator) * torch.tensor([0.01, 1, 5, 2]) - 1
    return inputs, targets, torch.rand(rows, generator=generator) < 0.3


def member(whole, number):
    """One member as an ensemble of its own."""
    state = whole.state_dict()
    alone = DynamicsEnsemble(3, 2, 1, 1, (16, 8), whole.terminal_head)
    kept = {name: value[number : number + 1] for name, value in state.items() if name in dict(whole.named_parameters())}
    scales = {name: value for name, value in state.items() if name not in kept and name != "elites"}
    alone.load_state_dict(kept | scales | {"elites": torch.zeros(1, dtype=torch.int64)})
    return alone


@pytest.mark.parametrize("head", [False, True])
def test_the_loss_is_the_gaussian_likelihood_of_torch_distributions_in_float64(head):
    model = ensemble(terminal_head=head).double()
    inputs, targets, ends = (part.double() if part.is_floating_point() else part for part in data(40))
    model.fit_scales(inputs, targets)
    with torch.no_grad():
        model.max_log_variance.add_(torch.randn(3, 1, 4))
    scaled = (targets - targets.mean(0)) / targets.std(0, correction=0)
    losses = model.losses(inputs.expand(3, -1, -1), targets.expand(3, -1, -1), ends.expand(3, -1))
    prediction = model.standardised(inputs)
    for number in range(3):
        normal = Normal(prediction.mean[number], prediction.std[number])
        expected = 2 * -normal.log_prob(scaled).mean() - math.log(2 * math.pi)
        expected += 0.01 / 3 * (model.max_log_variance[number] - model.min_log_variance[number]).sum()
        if head:
            bernoulli = torch.distributions.Bernoulli(logits=prediction.end[number])
            expected -= bernoulli.log_prob(ends.double()).mean()
        torch.testing.assert_close(losses[number], expected, rtol=1e-9, atol=1e-9)


def test_the_variance_stays_softly_within_its_bounds():
    model = ensemble()
    with torch.no_grad():
        model.networks.biases[-1][..., 4:] = torch.tensor([-100.0, 100.0, -4.0, 0.0])
        model.networks.weights[-1].zero_()
    log_variance = 2 * model.standardised(torch.zeros(1, 5)).std[0, 0].log()
    # softplus(x) at 10 is 10 to four places.
    assert log_variance.tolist() == pytest.approx([-10, 0.5, -4, 0.5 - math.log1p(math.exp(0.5))], abs=0.02)
    for number, bound in enumerate((model.min_log_variance, model.max_log_variance)):
        (gradient,) = torch.autograd.grad(
            model.standardised(torch.zeros(1, 5)).std.log()[..., number].sum(),
            bound,
        )
        # Half of the log-variance's, for each of the ensemble's members.
        assert gradient[:, 0, number].tolist() == pytest.approx([0.5] * len(gradient), abs=0.01)


@pytest.mark.parametrize("head", [False, True])
def test_members_computed_together_equal_members_alone(head):
    model = ensemble(terminal_head=head)
    inputs, targets, ends = data(64)
    model.fit_scales(inputs, targets)
    own = torch.randint(64, (3, 20))
    rows = (inputs[own], targets[own], ends[own])
    losses = model.losses(*rows)
    held_out = model.held_out_losses(inputs, targets, ends)
    model.losses(*rows).sum().backward()
    for number in range(3):
        alone = member(model, number)
        loss = alone.losses(*(part[number : number + 1] for part in rows))
        # An ensemble draws its members' bounds together with one weight for all, of which each has a share.
        width = (alone.max_log_variance - alone.min_log_variance).sum()
        loss = loss - (0.01 - 0.01 / 3) * width
        torch.testing.assert_close(loss[0], losses[number])
        torch.testing.assert_close(alone.held_out_losses(inputs, targets, ends)[0], held_out[number])
        loss.sum().backward()
        together = dict(model.named_parameters())
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(parameter.grad[0], together[name].grad[number], rtol=1e-4, atol=1e-6)
        prediction = alone.predict(inputs[:, :3], inputs[:, 3:])
        chosen = model.predict(inputs[:, :3], inputs[:, 3:], torch.tensor([number]))
        torch.testing.assert_close(prediction.mean, chosen.mean)
        torch.testing.assert_close(prediction.std, chosen.std)


def test_beyond_a_hundred_dimensions_the_bounds_stay_apart_and_half_lies_in_the_fifty_percent_interval():
    """As many dimensions as Ant's, whose noise (0.05 to 0.21 by the first of them) is known."""
    torch.manual_seed(0)
    observations, actions, members = 111, 8, 7
    model = DynamicsEnsemble(observations, actions, members, 5, (16,))

    def rows(count):
        inputs = torch.randn(count, observations + actions)
        std = 0.1 * torch.exp(inputs[:, :1].tanh())
        return inputs, inputs[:, :1] + std * torch.randn(count, observations + 1), std

    with torch.no_grad():
        # Nearer to where they settle than at the usual start, for a short run.
        model.min_log_variance.fill_(-7.5)
        model.max_log_variance.fill_(-1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ends = torch.zeros(members, 128, dtype=torch.bool)
    for _ in range(600):
        inputs, targets, _ = rows(128)
        optimizer.zero_grad()
        model.losses(inputs.expand(members, -1, -1), targets.expand(members, -1, -1), ends).sum().backward()
        optimizer.step()
    assert (model.max_log_variance > model.min_log_variance).all()
    inputs, targets, std = rows(2000)
    with torch.no_grad():
        prediction = model.predict(inputs[:, :observations], inputs[:, observations:])
    inside = (targets - prediction.mean).abs() < 0.6745 * prediction.std
    assert 0.4 < inside.float().mean() < 0.6
    assert prediction.std.mean().item() == pytest.approx(std.mean().item(), rel=0.25)


def test_predictions_are_in_the_units_of_the_environment():
    model = ensemble()
    inputs, targets, _ = data(200)
    model.fit_scales(inputs, targets)
    with torch.no_grad():
        model.networks.weights[-1].zero_()
        model.networks.biases[-1].zero_()
    prediction = model.predict(inputs[:, :3], inputs[:, 3:])
    torch.testing.assert_close(prediction.mean, targets.mean(0).expand(3, 200, 4))
    ratio = prediction.std / targets.std(0, correction=0)
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))


def test_every_layer_has_its_published_weight_decay_and_nothing_else_has():
    model = DynamicsEnsemble(3, 2, 2, 1, (8, 8, 8, 8))
    groups = model.parameter_groups()
    assert [group["weight_decay"] for group in groups] == [2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4, 0.0]
    assert [group["params"][0] is weight for group, weight in zip(groups, model.networks.weights, strict=False)] == [
        True
    ] * 5
    count = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert count == sum(parameter.numel() for parameter in model.parameters())


def test_uncertainties_by_hand():
    mean = torch.tensor([[[0.0, 0.0]], [[3.0, 3.0]], [[6.0, 9.0]]])
    std = torch.tensor([[[3.0, 4.0]], [[0.0, 6.0]], [[1.0, 1.0]]])
    prediction = Prediction(mean, std, None)
    assert uncertainty_of(prediction, "max-deviation").tolist() == [6.0]
    # The mean of the means is (3, 4); the last lies (3, 5) from it, the first (-3, -4).
    assert uncertainty_of(prediction, "disagreement").item() == pytest.approx(math.sqrt(34))


@pytest.mark.parametrize("uncertainty", [None, "max-deviation", "disagreement"])
def test_a_step_is_drawn_from_one_elite_a_row(uncertainty):
    model = ensemble(members=4, elites=2)
    model.elites.copy_(torch.tensor([3, 1]))
    with torch.no_grad():
        model.networks.weights[-1].zero_()
        model.networks.biases[-1][..., :4] = torch.tensor([100.0, 1, 300, 7])[:, None, None]
        model.min_log_variance.fill_(-30)
        model.networks.biases[-1][..., 4:] = -30
    observations = torch.arange(5001.0)[:, None].expand(5001, 3)
    torch.manual_seed(0)
    step = model.step(observations, torch.zeros(5001, 2), uncertainty)
    moved = (step.next_observations - observations).round()
    assert torch.equal(moved, step.rewards.round()[:, None].expand(-1, 3))
    shares = [(step.rewards.round() == value).float().mean().item() for value in (1, 7)]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5, abs=0.03)
    # Which elite a row gets does not follow from its place.
    assert 0.4 < (step.rewards[:2500].round() == 1).float().mean() < 0.6
    assert (step.uncertainty is None) == (uncertainty is None)
    if uncertainty is not None:
        expected = uncertainty_of(model.predict(observations, torch.zeros(5001, 2), model.elites), uncertainty)
        torch.testing.assert_close(step.uncertainty, expected)


@pytest.mark.parametrize("rows", [1, 7])
def test_every_elite_is_asked_equally_often_about_few_rows(rows):
    model = ensemble(members=6, elites=5, hidden=(4,))
    model.elites.copy_(torch.tensor([5, 0, 3, 1, 4]))
    with torch.no_grad():
        model.networks.weights[-1].zero_()
        model.networks.biases[-1][..., 3] = torch.arange(6.0)[:, None]
        model.min_log_variance.fill_(-30)
        model.networks.biases[-1][..., 4:] = -30
    observations, actions = torch.zeros(rows, 3), torch.zeros(rows, 2)
    draws = torch.stack([model.step(observations, actions).rewards.round() for _ in range(2000)])
    shares = torch.stack([(draws == number).float().mean(0) for number in range(6)])
    # Four standard deviations of a share of 2000 draws.
    torch.testing.assert_close(shares[[5, 0, 3, 1, 4]], torch.full((5, rows), 0.2), atol=0.036, rtol=0)
    assert not shares[2].any()


def test_sampled_steps_have_the_predicted_moments():
    model = ensemble(members=1, elites=1)
    inputs, targets, _ = data(100)
    model.fit_scales(inputs, targets)
    model.low.fill_(-torch.inf)
    model.high.fill_(torch.inf)
    row = inputs[:1].expand(40_000, 5)
    step = model.step(row[:, :3], row[:, 3:])
    prediction = model.predict(inputs[:1, :3], inputs[:1, 3:])
    values = torch.cat([step.next_observations - row[:, :3], step.rewards[:, None]], dim=-1)
    spread = prediction.std[0, 0]
    assert ((values.mean(0) - prediction.mean[0, 0]).abs() / spread).max() < 0.03
    torch.testing.assert_close(values.std(0) / spread, torch.ones(4), atol=0.03, rtol=0)


def test_sampled_states_and_rewards_stay_within_three_times_the_datas_range():
    model = ensemble()
    inputs, targets, _ = data(100)
    model.fit_scales(inputs, targets)
    with torch.no_grad():
        model.networks.biases[-1][..., :4] = 1e6
    step = model.step(inputs[:, :3], inputs[:, 3:])
    after = inputs[:, :3] + targets[:, :3]
    width = after.amax(0) - after.amin(0)
    torch.testing.assert_close(step.next_observations, (after.amax(0) + width).expand(100, 3))
    rewards = targets[:, 3]
    torch.testing.assert_close(step.rewards, (rewards.max() + rewards.max() - rewards.min()).expand(100))


def test_a_rule_decides_about_ends_else_the_terminal_head_else_nothing():
    observations, actions = torch.zeros(1000, 3), torch.zeros(1000, 2)
    assert not ensemble().step(observations, actions).terminations.any()
    model = ensemble(terminal_head=True)
    with torch.no_grad():
        model.networks.weights[-1].zero_()
        model.networks.biases[-1][..., -1] = math.log(0.25 / 0.75)
    assert model.step(observations, actions).terminations.float().mean().item() == pytest.approx(0.25, abs=0.05)
    model.rule = lambda following: following[:, 0] > 0
    step = model.step(observations, actions)
    assert torch.equal(step.terminations, step.next_observations[:, 0] > 0)


def test_constant_entries_stay_constant():
    model = ensemble()
    inputs, targets, _ = data(100)
    inputs[:, 1], targets[:, 1] = 0.3, 0.0
    model.fit_scales(inputs, targets)
    step = model.step(inputs[:, :3], inputs[:, 3:])
    assert torch.isfinite(step.next_observations).all()
    torch.testing.assert_close(step.next_observations[:, 1], torch.full((100,), 0.3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["max-deviation", "disagreement"])
def test_the_expected_step_is_the_mean_of_the_elites_and_its_likelihood_that_of_their_mixture(kind):
    model = ensemble(members=4, elites=3)
    model.elites.copy_(torch.tensor([3, 0, 2]))
    inputs, targets, _ = data(30)
    model.fit_scales(inputs, targets)
    observations, actions = inputs[:, :3], inputs[:, 3:]
    step = model.expected(observations, actions, kind, likelihood=True)
    prediction = model.predict(observations, actions, model.elites)
    mean = prediction.mean.mean(0)
    torch.testing.assert_close(step.next_observations, observations + mean[:, :3])
    torch.testing.assert_close(step.rewards, mean[:, 3])
    torch.testing.assert_close(step.uncertainty, uncertainty_of(prediction, kind))
    assert not step.terminations.any()
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(30, 3)),
        torch.distributions.Independent(Normal(prediction.mean.transpose(0, 1), prediction.std.transpose(0, 1)), 1),
    )
    torch.testing.assert_close(step.log_likelihood, mixture.log_prob(mean), rtol=1e-3, atol=1e-3)
    followed = torch.arange(30) % 3
    own = model.expected(observations, actions, followed=followed)
    for row in range(30):
        alone = observations[row] + prediction.mean[followed[row], row, :3]
        torch.testing.assert_close(own.next_observations[row], alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own.rewards, step.rewards)
    assert own.uncertainty is None
    assert own.log_likelihood is None


def test_an_expected_step_ends_where_it_is_likelier_than_not_and_stays_in_range():
    model = ensemble(terminal_head=True)
    with torch.no_grad():
        model.networks.weights[-1].zero_()
        model.networks.biases[-1].zero_()
        model.networks.biases[-1][:2, :, 0], model.networks.biases[-1][:2, :, -1] = 50.0, torch.tensor([[3.0], [-2.0]])
    model.low[0], model.high[0] = -1.0, 20.0
    observations, actions = torch.zeros(4, 3), torch.zeros(4, 2)
    step = model.expected(observations, actions)
    assert step.terminations.all()
    assert (step.next_observations[:, 0] == 20).all()
    own = model.expected(observations, actions, followed=torch.tensor([0, 1, 1, 0]))
    assert own.terminations.tolist() == [True, False, False, True]
    model.rule = lambda states: states[:, 0] < 5
    assert not model.expected(observations, actions).terminations.any()
