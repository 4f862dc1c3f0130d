"""Hindsight: which states become goals, by counting many draws against the shares that were asked for."""

import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.data.goal_shares import GoalShares
from trajplan.data.goals import GoalTransitions, later_rows
from trajplan.errors import ConfigError

LENGTHS = (4, 1, 7)


@pytest.fixture(scope="module")
def numbered():
    """Episodes whose observations are (row in the store, episode)."""
    episodes, row = [], 0
    for episode, length in enumerate(LENGTHS):
        rows = np.arange(row, row + length + 1)
        row += length + 1
        episodes.append(
            {
                "observations": np.stack([rows, np.full(length + 1, episode)], 1).astype(np.float32),
                "actions": np.zeros((length, 1), np.float32),
                "rewards": np.full(length, 5.0, np.float32),
                "terminations": np.zeros(length, bool),
                "truncations": np.arange(length) == length - 1,
            }
        )
    return OfflineDataset.from_episodes(episodes, goal_columns=(1, 0))


def drawn(numbered, actor, value=None, size=20_000, seed=0, **options):
    return GoalTransitions(numbered, actor, value, **options).sample(size, torch.Generator().manual_seed(seed))


def rows_of(batch, goals):
    """Rows of the present and of the goal, and whether both are of one episode."""
    present, episode = batch.observations.T
    goal_episode, goal = goals.T
    return present, goal, episode == goal_episode


def test_shares_of_present_future_and_any_state(numbered):
    batch = drawn(numbered, GoalShares(0, 1, "last"), GoalShares(0.2, 0.5, "last"))
    present, goal, _ = rows_of(batch, batch.goals)
    lasts = torch.tensor([4.0, 6.0, 14.0])
    at_last = torch.isin(goal, lasts)
    # A goal that is any state is one that an action was taken at, and so never an episode's last.
    assert at_last.float().mean().item() == pytest.approx(0.5, abs=0.01)
    here = (goal == present).float().mean().item()
    assert here == pytest.approx(0.2 + 0.3 / sum(LENGTHS), abs=0.01)
    assert rows_of(batch, batch.actor_goals)[1].unique().tolist() == lasts.tolist()


def test_rewards_are_minus_one_until_the_goal_and_a_terminal_is_there(numbered):
    batch = drawn(numbered, GoalShares(0, 1, "uniform"), GoalShares(0.3, 0.3, "geometric"))
    present, goal, _ = rows_of(batch, batch.goals)
    assert torch.equal(batch.terminations, goal == present)
    assert torch.equal(batch.rewards, torch.where(goal == present, 0.0, -1.0))
    assert 0 < batch.terminations.sum() < len(goal)


def test_several_steps_end_at_the_goal_or_with_the_episode(numbered):
    batch = drawn(
        numbered, GoalShares(0, 1, "uniform"), GoalShares(0.2, 0.6, "uniform"), steps=3, discount=0.5, size=5000
    )
    last = torch.tensor([4.0, 6.0, 14.0])
    for present, goal, following, reward, ended, steps in zip(
        batch.observations[:, 0], batch.goals[:, 1], batch.next_observations[:, 0], batch.rewards, batch.terminations,
        batch.steps, strict=True,
    ):  # fmt: skip
        end = last[last > present].min()
        assert following == min(present + 3, end)
        assert steps == following - present
        assert bool(ended) == bool(present <= goal < following)
        taken = int(goal - present) if ended else int(steps)
        assert float(reward) == -sum(0.5**k for k in range(taken))
    assert 0 < batch.terminations.sum() < 5000


def test_without_goals_of_values_rewards_are_the_datas(numbered):
    batch = drawn(numbered, GoalShares(0, 1, "uniform"), size=50)
    assert batch.goals is None
    assert (batch.rewards == 5).all()


@pytest.mark.parametrize("draw", ["geometric", "uniform", "last"])
def test_future_goals_lie_later_in_the_same_episode(numbered, draw):
    batch = drawn(numbered, GoalShares(0, 1, draw, 0.8))
    present, goal, together = rows_of(batch, batch.actor_goals)
    assert together.all()
    assert (goal > present).all()


def uniform(count):
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_geometric_steps_have_the_geometric_distribution():
    rows, last = torch.zeros(200_000, dtype=torch.int64), torch.full((200_000,), 6)
    steps = later_rows(rows, last, "geometric", 0.7, uniform(len(rows)))
    expected = [0.3 * 0.7**n for n in range(5)] + [0.7**5]
    np.testing.assert_allclose(steps.bincount()[1:] / len(rows), expected, atol=0.005)
    assert later_rows(rows[:9], last[:9], "geometric", 0.0, uniform(9)).tolist() == [1] * 9


def test_uniform_steps_reach_every_later_state_alike():
    rows, last = torch.full((100_000,), 3), torch.full((100_000,), 7)
    steps = later_rows(rows, last, "uniform", 0.9, uniform(len(rows)))
    np.testing.assert_allclose(steps.bincount()[4:] / len(rows), [0.25] * 4, atol=0.01)


def test_goals_come_from_the_chosen_episodes_alone(numbered):
    batch = drawn(numbered, GoalShares(0, 0, "last"), episodes=np.array([0, 2]), size=1000)
    assert batch.observations[:, 1].unique().tolist() == [0, 2]
    assert batch.actor_goals[:, 0].unique().tolist() == [0, 2]


def test_a_batch_is_what_was_drawn(numbered):
    shares = GoalShares(0.2, 0.5, "geometric")
    transitions = GoalTransitions(numbered, shares, shares)
    drawn = transitions.draw(50, torch.Generator().manual_seed(0))
    batch = transitions.gather(drawn)
    assert torch.equal(batch.actor_goals[:, 1], drawn[:, 1].float())
    assert torch.equal(batch.goals[:, 1], drawn[:, 2].float())
    assert torch.equal(batch.goals, transitions.sample(50, torch.Generator().manual_seed(0)).goals)


def test_the_same_seed_draws_the_same(numbered):
    shares = GoalShares(0.2, 0.5, "geometric")
    one, other = (drawn(numbered, shares, shares, size=100, seed=3) for _ in range(2))
    assert torch.equal(one.goals, other.goals)
    assert torch.equal(one.actor_goals, other.actor_goals)
    assert not torch.equal(one.goals, one.actor_goals)


def test_bad_shares_are_refused():
    with pytest.raises(ConfigError, match=r"must be at most 1"):
        GoalShares(0.6, 0.5, "last")
    with pytest.raises(ConfigError, match=r"share of future goals is -0.5"):
        GoalShares(0.0, -0.5, "last")
    with pytest.raises(ConfigError, match="below 1"):
        GoalShares(0.0, 1.0, "geometric", 1.0)
    GoalShares(0.0, 1.0, "last", 1.0)


def test_data_without_goals_are_refused(make_episode):
    data = OfflineDataset.from_episodes([make_episode(np.random.default_rng(0), 3)])
    with pytest.raises(ConfigError, match="names no goal_columns"):
        GoalTransitions(data, GoalShares(0, 1, "last"))
