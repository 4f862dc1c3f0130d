"""Single transitions with their true next observation, gathered in batches on any device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trajplan.data.episodes import Episodes


@dataclass(frozen=True)
class Batch:
    """B transitions. `terminations` is True at real ends only: a time limit does not stop the bootstrap.

    Returns, weights and observations of the last are set where `Transitions` was given a discount. They describe the
    rest of the episode; how to value what follows an episode that was cut off is up to the method.
    """

    observations: torch.Tensor  # (B, S) float32
    actions: torch.Tensor  # (B, A) float32
    rewards: torch.Tensor  # (B,) float32
    next_observations: torch.Tensor  # (B, S) float32
    terminations: torch.Tensor  # (B,) bool
    returns: torch.Tensor | None = None  # (B,) float32: sum of discount^k r, from this transition's own reward on
    last_weights: torch.Tensor | None = None  # (B,) float32: discount^(transitions left); 0 before a real end
    last_observations: torch.Tensor | None = None  # (B, S) float32, the episode's
    goals: torch.Tensor | None = None  # (B, G) float32, what rewards and terminations are of: `GoalTransitions`
    actor_goals: torch.Tensor | None = None  # (B, G) float32, what the action is to have been taken for
    steps: torch.Tensor | None = None  # (B,) int64, transitions until `next_observations`; None: one each


class Transitions:
    """The transitions of the chosen episodes, numbered from 0 in the dataset's order.

    On the CPU the arrays are used where they lie (memory-mapped ones too); on another device they are copied to it.

    Args:
        dataset: where they are taken from.
        episodes: numbers of the chosen ones; None: all.
        device: where batches are made.
        discount: adds returns to the batches; None: leaves them out.
    """

    def __init__(
        self,
        dataset: Episodes,
        *,
        episodes: np.ndarray | None = None,
        device: Any = "cpu",
        discount: float | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._rows: torch.Tensor | None = None
        if episodes is not None:
            chosen = dataset.chosen(episodes)
            lengths = dataset.lengths[chosen]
            before = np.cumsum(lengths) - lengths
            rows = np.repeat(dataset.offsets[chosen] - before, lengths) + np.arange(lengths.sum())
            self._rows = torch.from_numpy(rows).to(self._device)
        self._length = dataset.num_transitions if self._rows is None else len(self._rows)
        self._width = dataset.observation_dim
        # Looked up rather than searched for: at random places the search costs more than the gathers.
        episode = np.repeat(np.arange(dataset.num_episodes, dtype=np.int32), dataset.lengths)
        self._episode = torch.from_numpy(episode).to(self._device)
        # An observation and the next lie side by side in the store, so that one gather fetches both.
        self._observations = as_tensor(dataset.observations, self._device)
        self._pairs = sliding(self._observations, 2)
        self._actions = as_tensor(dataset.actions, self._device)
        self._rewards = as_tensor(dataset.rewards, self._device)
        self._terminations = as_tensor(dataset.terminations, self._device)
        self._discounted: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        if discount is not None:
            columns = discounted(dataset, discount)
            self._discounted = tuple(as_tensor(column, self._device) for column in columns)  # type: ignore[assignment]

    def __len__(self) -> int:
        """Number of transitions."""
        return self._length

    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> Batch:
        """A batch drawn uniformly with replacement; `generator` must live on the view's device."""
        return self.gather(self.draw(batch_size, generator))

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """The numbers of the transitions of such a batch, (B,) int64."""
        return torch.randint(self._length, (batch_size,), generator=generator, device=self._device)

    def gather(self, index: torch.Tensor) -> Batch:
        """The transitions `index` (B,) int64."""
        rows = index if self._rows is None else self._rows[index]
        # The store has one observation more in each episode before this one.
        episode = self._episode.index_select(0, rows)
        pairs = self._pairs.index_select(0, rows + episode)
        after: dict[str, torch.Tensor] = {}
        if self._discounted is not None:
            returns, weights, last = self._discounted
            after["returns"] = returns.index_select(0, rows)
            after["last_weights"] = weights.index_select(0, rows)
            after["last_observations"] = self._observations.index_select(0, last.index_select(0, episode))
        return Batch(
            observations=pairs[:, : self._width],
            actions=self._actions.index_select(0, rows),
            rewards=self._rewards.index_select(0, rows),
            next_observations=pairs[:, self._width :],
            terminations=self._terminations.index_select(0, rows),
            **after,
        )


def discounted(dataset: Episodes, discount: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `Batch` says about the rest of an episode, for a whole dataset.

    Returns:
        Returns (N,) float32, weights of the last observations (N,) float32, and their rows in the store (E,) int64.
    """
    returns = dataset.rewards + discount * dataset.returns_to_go(discount, None)
    left = np.repeat(dataset.offsets[1:], dataset.lengths) - np.arange(dataset.num_transitions)
    ended = np.repeat(dataset.terminations[dataset.offsets[1:] - 1], dataset.lengths)
    weights = np.where(ended, 0.0, np.float64(discount) ** left)
    last = dataset.offsets[1:] + np.arange(dataset.num_episodes)
    return returns.astype(np.float32), weights.astype(np.float32), last


def as_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array as a tensor: sharing its memory on the CPU, a copy elsewhere."""
    return torch.from_numpy(np.asarray(array)).to(device)


def sliding(table: torch.Tensor, length: int) -> torch.Tensor:
    """All runs of `length` rows of a contiguous table (R, ...), each as one flat row of an overlapping view.

    Gathering from it copies contiguous memory instead of single rows.
    """
    width = table[0].numel()
    return table.as_strided((len(table) - length + 1, length * width), (width, 1))
