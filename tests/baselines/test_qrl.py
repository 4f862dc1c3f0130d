"""Quasimetric reinforcement learning against the steps of a small world with a one-way street."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces

from trajplan.baselines.engine.preflight import preflight
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.qrl import QRL, QRLConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.data.goals import GoalTransitions
from trajplan.data.transitions import Batch
from trajplan.errors import ConfigError
from trajplan.models.networks import Dimensions
from trajplan.models.quasimetric import Quasimetric

CELLS = 7
# Along a corridor either way, and from its end back to its beginning, but not the other way round.
EDGES = {cell: {max(cell - 1, 0), min(cell + 1, CELLS - 1)} for cell in range(CELLS)} | {CELLS - 1: {CELLS - 2, 0}}


def walks(count=400, length=2):
    """Random walks of two steps, so that no walk shows the way between distant cells."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        cells, moves = [int(rng.integers(CELLS))], []
        for _ in range(length):
            moves.append(int(rng.integers(2)))
            cells.append(sorted(EDGES[cells[-1]])[moves[-1] % len(EDGES[cells[-1]])])
        yield {
            "observations": np.eye(CELLS, dtype=np.float32)[cells],
            "actions": np.array(moves),
            "rewards": np.zeros(length, np.float32),
            "terminations": np.zeros(length, bool),
            "truncations": np.arange(length) == length - 1,
        }


def shortest():
    """Steps between all cells (Floyd and Warshall)."""
    steps = np.full((CELLS, CELLS), np.inf)
    for cell, following in EDGES.items():
        steps[cell, cell] = 0
        steps[cell, [other for other in following if other != cell]] = 1
    for middle in range(CELLS):
        steps = np.minimum(steps, steps[:, [middle]] + steps[[middle]])
    return torch.from_numpy(steps).float()


@pytest.fixture(scope="module")
def street():
    return OfflineDataset.from_episodes(
        walks(), action_space=spaces.Discrete(2), goal_columns=range(CELLS), id="street"
    )


@pytest.fixture(scope="module")
def learned(street):
    torch.manual_seed(0)
    config = QRLConfig(
        hidden_layers=1, hidden_width=64, latents=64, offset=20.0, softness=0.1, value_learning_rate=1e-3,
        actor_learning_rate=1e-2, multiplier=5.0,
    )  # fmt: skip
    method = QRL(Dimensions.of(street.info), config)
    transitions = GoalTransitions(street, config.actor_goals, config.value_goals)
    for _ in range(2000):
        metrics = method.update(transitions.sample(64))
    assert set(metrics) >= {"value/loss", "value/excess", "value/multiplier", "actor/loss"}
    return method


def test_distances_are_the_shortest_ways_that_no_walk_went(learned):
    cells = torch.eye(CELLS)
    steps = shortest()
    assert steps[CELLS - 1, 0] == 1 < steps[0, CELLS - 1]
    with torch.no_grad():
        found = torch.stack([-learned.value(cells, cells[goal].expand(CELLS, -1)) for goal in range(CELLS)], 1)
    torch.testing.assert_close(found, steps, atol=0.6, rtol=0.1)


def test_its_policy_takes_the_shorter_way(learned):
    cells = torch.eye(CELLS)
    # Of the last cell's neighbours in order, 0 is the first: through the one-way street.
    assert learned.act(cells[-1:], cells[:1]).item() == 0
    assert learned.act(cells[2:4], cells[5:6].expand(2, -1)).flatten().tolist() == [1, 1]


def test_a_quasimetric_obeys_the_triangle_inequality_and_is_not_symmetric():
    torch.manual_seed(0)
    metric = Quasimetric(3, (16,), 32, frequencies=2, scale=10.0)
    a, b, c = torch.randn(3, 500, 3)
    with torch.no_grad():
        direct, detour = metric(a, c), metric(a, b) + metric(b, c)
        assert (direct <= detour + 1e-4).all()
        assert metric(a, a).abs().max() == 0
        assert (metric(a, b) - metric(b, a)).abs().max() > 0.1
        pairs = metric.between(metric.latents(a)[:5, None], metric.latents(b)[None, :4])
        torch.testing.assert_close(pairs[3, 2], metric(a[3:4], b[2:3])[0])


def test_the_loss_is_the_lagrangian_by_hand():
    torch.manual_seed(0)
    config = QRLConfig(hidden_layers=1, hidden_width=8, latents=8, pairs=3, n_steps=2, offset=30.0, softness=0.2)
    method = QRL(Dimensions(3, 2, goal_dim=3), config).double()
    parts = {"observations": 3, "next_observations": 3, "goals": 3, "actor_goals": 3, "actions": 2}
    values = {name: torch.randn(6, size, dtype=torch.float64) for name, size in parts.items()}
    steps = torch.tensor([2, 2, 1, 2, 1, 2])
    batch = Batch(**values, rewards=torch.zeros(6), terminations=torch.zeros(6, dtype=torch.bool), steps=steps)
    with torch.no_grad():
        violation = -(config.epsilon**2)
        for i in range(6):
            distance = method.distance(values["observations"][i : i + 1], values["next_observations"][i : i + 1])
            violation += max(0.0, (distance.item() - int(steps[i])) / 2) ** 2 / 6
        push = 0.0
        for state in values["observations"][:3]:
            for goal in values["goals"][:3]:
                away = 30.0 - method.distance(state[None], goal[None]).item()
                push += np.log1p(np.exp(0.2 * away)) / 0.2 / 30.0 / 9
    loss, metrics = method.value_loss(batch)
    assert metrics["value/loss"].item() == pytest.approx(push)
    # The multiplier, 1 at first, stands once for the distance and once, with the other sign, for itself.
    assert loss.item() == pytest.approx(push)
    slope = torch.autograd.grad(loss, method.log_multiplier)[0].item()
    assert slope == pytest.approx(-violation * (1 - np.exp(-1.0)))
    relaxed = dataclasses.replace(batch, steps=steps * 1000)
    assert method.value_loss(relaxed)[1]["value/excess"].item() == 0


def test_goals_that_are_no_whole_observations_are_refused(street):
    partial = dataclasses.replace(street.info, goal_columns=(0, 1))
    street = OfflineDataset.from_episodes(walks(20), action_space=spaces.Discrete(2), goal_columns=(0, 1), id="street")
    assert street.info.goal_columns == partial.goal_columns
    with pytest.raises(ConfigError, match=r"whole observations.*gcivl"):
        preflight(street, "qrl", QRLConfig(), RunConfig())


@pytest.mark.parametrize("settings", [{"latents": 20}, {"n_steps": 0}, {"epsilon": 0.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        QRLConfig(**settings)
