"""Goal-conditioned value learning against closed forms, on a chain that only short walks cross."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from trajplan.baselines.engine.checkpoint import load_baseline
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.gcivl import GCIVL, GCIVLConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.data.goal_shares import GoalShares
from trajplan.data.goals import GoalTransitions
from trajplan.data.transitions import Batch
from trajplan.errors import ConfigError
from trajplan.models.networks import Dimensions

CELLS, DISCOUNT = 6, 0.8


def walks_on_a_chain(count=300, length=3):
    """Random walks of a few steps on one-hot cells; no walk sees both ends."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        cells, moves = [int(rng.integers(CELLS))], []
        for _ in range(length):
            moves.append(int(rng.integers(2)))
            cells.append(int(np.clip(cells[-1] + 2 * moves[-1] - 1, 0, CELLS - 1)))
        yield {
            "observations": np.eye(CELLS, dtype=np.float32)[cells],
            "actions": np.array(moves),
            "rewards": np.zeros(length, np.float32),
            "terminations": np.zeros(length, bool),
            "truncations": np.arange(length) == length - 1,
        }


@pytest.fixture(scope="module")
def chain():
    return OfflineDataset.from_episodes(
        walks_on_a_chain(), action_space=spaces.Discrete(2), goal_columns=range(CELLS), id="chain"
    )


class Table(torch.nn.Module):
    """V(s, g) as a table, twice."""

    def __init__(self):
        super().__init__()
        self.values = torch.nn.Parameter(torch.zeros(2, CELLS, CELLS))

    def forward(self, observations, goals):
        return self.values[:, observations.argmax(-1), goals.argmax(-1)]


@pytest.fixture(scope="module", params=[1, 2], ids=["one step", "two steps"])
def learned(chain, request):
    torch.manual_seed(0)
    # A state is at its goal in the one row that the goal was taken from, so that V has some of the way to itself, too.
    config = GCIVLConfig(
        hidden_layers=1, hidden_width=8, discount=DISCOUNT, expectile=0.97, tau=0.2, value_current_goals=0.5,
        value_future_goals=0.3, alpha=20.0, actor_learning_rate=1e-2, n_steps=request.param,
    )  # fmt: skip
    method = GCIVL(Dimensions.of(chain.info), config)
    method.value, method.target = Table(), Table().requires_grad_(False)
    method.optimizers["value"] = torch.optim.Adam(method.value.parameters(), lr=0.05)
    transitions = GoalTransitions(
        chain, config.actor_goals, config.value_goals, steps=config.lookahead, discount=DISCOUNT
    )
    for _ in range(1200):
        method.update(transitions.sample(256))
    return method


def test_values_are_the_steps_to_the_goal_that_no_walk_went(learned):
    away = torch.arange(CELLS)
    steps = (away[:, None] - away).abs()
    expected = -(1 - DISCOUNT**steps) / (1 - DISCOUNT)
    values = learned.value.values.detach()
    # The expectile falls short of the best by a little at every step.
    torch.testing.assert_close(values.mean(0), expected, atol=0.25, rtol=0)
    assert (values.mean(0).argmax(0) == away).all()
    ordered = values.mean(0)[:, 0]
    assert (ordered.diff() < 0).all()


def test_its_policy_goes_to_goals_that_no_walk_reached(learned):
    cells = torch.eye(CELLS)
    assert learned.act(cells[1:5], cells[5].expand(4, -1)).flatten().tolist() == [1] * 4
    assert learned.act(cells[1:5], cells[0].expand(4, -1)).flatten().tolist() == [0] * 4


def numbers(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_losses_are_the_references_by_hand(chain):
    torch.manual_seed(0)
    config = GCIVLConfig(hidden_layers=1, hidden_width=4, discount=0.9, expectile=0.7, alpha=2.0, max_weight=1.05)
    dimensions = Dimensions(3, 2, goal_dim=2)
    method = GCIVL(dimensions, config).double()
    with torch.no_grad():
        for parameter in [*method.target.parameters(), *method.value.parameters()]:
            parameter.add_(torch.randn_like(parameter))
    parts = {"observations": 3, "next_observations": 3, "goals": 2, "actor_goals": 2, "actions": 2}
    values = {name: torch.randn(20, size, dtype=torch.float64) for name, size in parts.items()}
    reached = torch.arange(20) % 4 == 0
    batch = Batch(**values, rewards=reached.double() - 1, terminations=reached)
    value_loss, actor_loss = method.value_loss(batch)[0].item(), method.actor_loss(batch)[0].item()
    total_value, total_actor = 0.0, 0.0
    with torch.no_grad():
        for i in range(20):
            row = {name: part[i : i + 1] for name, part in values.items()}
            bootstrap = [0.0, 0.0] if reached[i] else method.target(row["next_observations"], row["goals"])[:, 0]
            targets = [batch.rewards[i].item() + 0.9 * float(value) for value in bootstrap]
            before = method.target(row["observations"], row["goals"])[:, 0].mean().item()
            weight = 0.7 if min(targets) - before >= 0 else 0.3
            predicted = method.value(row["observations"], row["goals"])[:, 0].tolist()
            total_value += sum(weight * (t - v) ** 2 for t, v in zip(targets, predicted, strict=True))
            both = [
                method.value(row[name], row["actor_goals"]).mean().item()
                for name in ("next_observations", "observations")
            ]
            mean = method.act(row["observations"], row["actor_goals"])
            log_prob = method.policy(torch.cat([row["observations"], row["actor_goals"]], -1)).log_prob(row["actions"])
            assert mean.shape == (1, 2)
            total_actor -= min(np.exp(2.0 * (both[0] - both[1])), 1.05) * log_prob.item()
    assert value_loss == pytest.approx(total_value / 20)
    assert actor_loss == pytest.approx(total_actor / 20)


def test_normalised_layers_have_mean_0_and_variance_1_whatever_their_scale(chain):
    torch.manual_seed(0)
    dimensions = Dimensions.of(chain.info)
    method = GCIVL(dimensions, GCIVLConfig(hidden_layers=2, hidden_width=16))
    plain = GCIVL(dimensions, GCIVLConfig(hidden_layers=2, hidden_width=16, layer_norm=False))
    plain.load_state_dict(method.state_dict())
    observations, goals = numbers((5, CELLS)), numbers((5, CELLS))
    hidden = method.value.networks.activation(numbers((2, 5, 16)) * 7)
    torch.testing.assert_close(hidden.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.var(-1, correction=0), torch.ones(2, 5), atol=1e-3, rtol=0)
    assert not torch.allclose(method.value(observations, goals), plain.value(observations, goals))


SMALL = {"hidden_layers": 1, "hidden_width": 8}
RUN = RunConfig(updates=4, batch_size=8, log_every=2, eval_every=0, save_every=4)


def test_the_checkpoint_says_which_states_were_goals_and_its_policy_asks_for_one(chain, tmp_path):
    train(chain, tmp_path, "gcivl", GCIVLConfig(**SMALL), RUN, device="cpu", progress=False)
    written = json.loads((tmp_path / "dataset.json").read_text())
    assert written["goal_columns"] == list(range(CELLS))
    assert written["goal_relabelling"] == {
        "name": "hindsight",
        "actor": dataclasses.asdict(GoalShares(0.0, 1.0, "uniform", 0.99)),
        "value": dataclasses.asdict(GoalShares(0.2, 0.5, "geometric", 0.99)),
    }
    policy = load_baseline(tmp_path)
    with pytest.raises(ConfigError, match="gcivl acts for a goal"):
        policy.reset([0], [0])
    with pytest.raises(ConfigError, match="hold 6 numbers"):
        policy.reset([0], [0], np.zeros((1, 5)))
    cells = np.eye(CELLS, dtype=np.float32)
    policy.reset([0, 1], [4, 7], cells[:2])
    both = policy.act(cells[[2, 3]], np.zeros(2), np.array([7, 4]))
    # Slots keep their goals, whatever the order in which they act; goals are standardised as observations are.
    scaled = (cells - policy.scaling.mean.numpy()) / policy.scaling.std.numpy()
    scaled = torch.from_numpy(scaled)
    expected = policy.method.act(scaled[[2, 3]], scaled[[1, 0]])
    np.testing.assert_array_equal(both, expected.detach().numpy())


def test_what_does_not_fit_is_refused_before_anything_is_written(chain, tmp_path):
    blind = dataclasses.replace(chain, info=dataclasses.replace(chain.info, goal_columns=None))
    with pytest.raises(ConfigError, match="names no goal_columns"):
        train(blind, tmp_path / "a", "gcivl", GCIVLConfig(**SMALL), RUN, device="cpu", progress=False)
    shifted = dataclasses.replace(RUN, reward_transform="minus-one")
    with pytest.raises(ConfigError, match="must be none for gcivl"):
        train(chain, tmp_path / "a", "gcivl", GCIVLConfig(**SMALL), shifted, device="cpu", progress=False)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="at most 1"):
        GCIVLConfig(value_current_goals=0.6, value_future_goals=0.5)
