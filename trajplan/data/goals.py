"""Goals: what an episode is to reach, and hindsight, which takes for goals of training what episodes did reach.

A goal holds the columns `DatasetInfo.goal_columns` of an observation. Hindsight (Andrychowicz et al. 2017) draws it
from the recorded ones: the present itself, a later one of the same episode, or any of the data. Which is drawn comes
from torch's generators, so that a run that is resumed draws what one that was not stopped would have drawn.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajplan.data.episodes import Episodes
from trajplan.data.goal_shares import Future, GoalShares
from trajplan.data.info import DatasetInfo
from trajplan.data.transitions import Batch, Transitions
from trajplan.errors import ConfigError


class GoalTransitions(Transitions):
    """Transitions with goals in hindsight: a reward of -1 until the goal, and of 0 with a terminal where it is.

    A state is at its goal where it is the very one that the goal was taken from, as in OGBench (Park et al. 2025).
    With `steps` above 1 the next observation is that many transitions later, or the episode's last, and the reward is
    the discounted sum on the way there, which ends at the goal.

    Args:
        dataset: where they are taken from; its info names the goal's columns.
        actor: the goals of policies, in `Batch.actor_goals`.
        value: the goals that rewards, terminals and `Batch.goals` are of; None: these stay the data's, without goals.
        steps: transitions that a batch's next observation lies ahead.
        discount: of the rewards on the way there.
        episodes, device: as for `Transitions`.
    """

    def __init__(
        self,
        dataset: Episodes,
        actor: GoalShares,
        value: GoalShares | None = None,
        *,
        steps: int = 1,
        discount: float = 1.0,
        episodes: np.ndarray | None = None,
        device: Any = "cpu",
    ) -> None:
        super().__init__(dataset, episodes=episodes, device=device)
        self._actor, self._value = actor, value
        self._steps, self._discount = steps, discount
        self._columns = torch.tensor(goal_columns(dataset.info), device=self._device)
        last = dataset.offsets[1:] + np.arange(dataset.num_episodes)
        self._last = torch.from_numpy(last).to(self._device)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Transitions drawn uniformly with replacement, each with goals of its own, as `gather` takes them.

        Returns:
            (B, 2) or, with goals of values, (B, 3) int64: numbers of transitions, then rows of goals in the store.
        """
        index = super().draw(batch_size, generator)
        kinds = (self._actor,) if self._value is None else (self._actor, self._value)
        return torch.stack([index, *(self._goal_rows(index, shares, generator) for shares in kinds)], -1)

    def gather(self, index: Tensor) -> Batch:
        """The transitions and goals that `draw` gave."""
        transitions, actor, *value = index.unbind(-1)
        batch = replace(super().gather(transitions), actor_goals=self._goals(actor))
        if not value:
            return batch
        present, last = self._states(transitions)
        if self._steps == 1:
            reached = value[0] == present
            rewards = reached.to(batch.rewards.dtype) - 1
            return replace(batch, goals=self._goals(value[0]), rewards=rewards, terminations=reached)
        ahead = (last - present).clamp(max=self._steps)
        away = value[0] - present
        reached = (away >= 0) & (away < ahead)
        return replace(
            batch,
            goals=self._goals(value[0]),
            rewards=-discounted_steps(torch.where(reached, away, ahead), self._discount).to(batch.rewards.dtype),
            next_observations=self._observations.index_select(0, present + ahead),
            terminations=reached,
            steps=ahead,
        )

    def _goal_rows(self, index: Tensor, shares: GoalShares, generator: torch.Generator | None) -> Tensor:
        present, last = self._states(index)
        anywhere = self._states(super().draw(len(index), generator))[0]
        kind, uniform = torch.rand((2, len(index)), generator=generator, dtype=torch.float64, device=self._device)
        rows = later_rows(present, last, shares.draw, shares.discount, uniform)
        rows = torch.where(kind < shares.current + shares.future, rows, anywhere)
        return torch.where(kind < shares.current, present, rows)

    def _goals(self, rows: Tensor) -> Tensor:
        return self._observations.index_select(0, rows).index_select(1, self._columns)

    def _states(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The rows in the store of the transitions' observations, and of the last of their episodes: (B,) each."""
        rows = index if self._rows is None else self._rows[index]
        episode = self._episode.index_select(0, rows)
        return rows + episode, self._last.index_select(0, episode)


def discounted_steps(steps: Tensor, discount: float) -> Tensor:
    """What n steps cost at 1 each, 1 + discount + ... + discount^(n - 1): (B,) int64 to (B,) float64."""
    count = steps.double()
    return count if discount == 1 else (1 - discount**count) / (1 - discount)


def later_rows(rows: Tensor, last: Tensor, draw: Future, discount: float, uniform: Tensor) -> Tensor:
    """For each observation in the store one after it in its episode: see `GoalShares`.

    Args:
        rows, last: (B,) int64, of the observations, and of the last of their episodes, which lie after them.
        draw, discount: as in `GoalShares`.
        uniform: (B,) float64 in [0, 1), what the draw is made with.

    Returns:
        (B,) int64 rows, after `rows` and at most `last`.
    """
    if draw == "last":
        return last
    if draw == "uniform":
        steps = (uniform * (last - rows)).long()
    else:
        # P(steps >= n) = P(1 - uniform <= discount^n) = discount^n.
        steps = ((1 - uniform).log() / math.log(discount)).long() if discount > 0 else torch.zeros_like(rows)
    return torch.minimum(rows + 1 + steps, last)


def goal_columns(info: DatasetInfo) -> tuple[int, ...]:
    """The columns of a goal, of a dataset that has to know them."""
    if info.goal_columns is None:
        raise ConfigError(
            f"dataset {info.id!r} names no goal_columns, the columns of an observation that a goal fixes: give "
            "from_episodes goal_columns=..., or import data that know goals."
        )
    return info.goal_columns


def checked_goals(info: DatasetInfo, goals: Any) -> np.ndarray:
    """Goals (m, G) float32 as a policy is given them; refused where they do not fit the dataset's goal columns."""
    if info.goal_columns is None:
        raise ConfigError(f"dataset {info.id!r}, which this policy learned from, knows no goals: reset it without one.")
    rows = np.asarray(goals, np.float32)
    if rows.ndim != 2 or rows.shape[1] != len(info.goal_columns):
        raise ConfigError(
            f"a goal of shape {rows.shape[1:]} was given, and goals of dataset {info.id!r} hold "
            f"{len(info.goal_columns)} numbers, of the observation's columns {list(info.goal_columns)}."
        )
    if not np.isfinite(rows).all():
        raise ConfigError(f"a goal must be finite numbers, not {rows[~np.isfinite(rows).all(1)][0].tolist()}.")
    return rows
