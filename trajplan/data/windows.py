"""Windows of consecutive transitions of one episode, gathered in batches on any device."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from trajplan.data.episodes import Episodes
from trajplan.data.transitions import as_tensor, sliding
from trajplan.errors import ConfigError


@dataclass(frozen=True)
class WindowBatch:
    """B windows of T transitions; where `valid` (B, T) is False the row repeats the episode's last transition."""

    observations: torch.Tensor  # (B, T, S) float32
    actions: torch.Tensor  # (B, T, A) float32
    rewards: torch.Tensor  # (B, T) float32
    valid: torch.Tensor  # (B, T) bool


class Windows:
    """Every transition of the chosen episodes (with a stride, every `stride`-th of each) starts one window.

    A window never leaves its episode: beyond its end is padding, marked by `valid == False`. The rows that
    `gather_rows` gives index whatever has one row per transition, such as tokens.

    Attributes:
        length: T, transitions per window.
        starts: (W,) int64, the row of each window's first transition.
        ends: (W,) int64, one past the row of the last transition of its episode.
    """

    def __init__(
        self,
        dataset: Episodes,
        length: int,
        *,
        stride: int = 1,
        episodes: np.ndarray | None = None,
        device: Any = "cpu",
    ) -> None:
        if length < 1 or stride < 1:
            raise ConfigError(f"Windows need a length and a stride of at least 1, not {length} and {stride}.")
        self.length = length
        self._dataset = dataset
        self._device = torch.device(device)
        chosen = dataset.chosen(episodes)
        counts = -(-dataset.lengths[chosen] // stride)
        before = np.cumsum(counts) - counts
        starts = np.repeat(dataset.offsets[chosen] - before * stride, counts) + np.arange(counts.sum()) * stride
        self.starts = torch.from_numpy(starts).to(self._device)
        self.ends = torch.from_numpy(np.repeat(dataset.offsets[chosen + 1], counts)).to(self._device)
        self._episode = torch.from_numpy(np.repeat(chosen.astype(np.int32), counts)).to(self._device)
        self._steps = torch.arange(length, device=self._device)

    def __len__(self) -> int:
        """W, the number of windows."""
        return len(self.starts)

    def episode_of(self, index: torch.Tensor) -> torch.Tensor:
        """Episode of each window, (B,) int64."""
        return self._episode.index_select(0, index).long()

    def gather_rows(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the windows' transitions.

        Args:
            index: (B,) int64 window numbers, on the views' device.

        Returns:
            rows (B, T) int64, held at the episode's last row beyond its end; valid (B, T) bool.
        """
        rows = self.starts.index_select(0, index)[:, None] + self._steps
        last = self.ends.index_select(0, index)[:, None] - 1
        return torch.minimum(rows, last), rows <= last

    def observation_rows(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows in the store of the windows' first observations, and of the last of their episodes: (B,) int64 each."""
        # The store has one observation more in each episode before this one.
        episode = self.episode_of(index)
        return self.starts.index_select(0, index) + episode, self.ends.index_select(0, index) + episode

    def batch(self, index: torch.Tensor) -> WindowBatch:
        """Observations, actions and rewards of the windows `index` (B,)."""
        starts = self.starts.index_select(0, index)
        left = self.ends.index_select(0, index) - starts
        # The store has one observation more in each episode before this one.
        observation_starts = starts + self.episode_of(index)
        cut = torch.nonzero(left < self.length)[:, 0]
        cut_steps = torch.minimum(self._steps, left[cut, None] - 1)
        observations, actions, rewards = self._tables
        return WindowBatch(
            _stretches(observations, observation_starts, cut, cut_steps),
            _stretches(actions, starts, cut, cut_steps),
            _stretches(rewards, starts, cut, cut_steps),
            self._steps < left[:, None],
        )

    @cached_property
    def _tables(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Made when first needed: training on tokens gathers rows and does not need the arrays on the device.
        dataset = self._dataset
        arrays = (dataset.observations, dataset.actions, dataset.rewards)
        observations, actions, rewards = (as_tensor(array, self._device) for array in arrays)
        return observations, actions, rewards


def _stretches(table: torch.Tensor, starts: torch.Tensor, cut: torch.Tensor, cut_steps: torch.Tensor) -> torch.Tensor:
    """As many rows of a table (R, ...) from each of `starts` (B,) as a window has steps.

    The windows `cut` (C,) leave their episode and take the rows at `cut_steps` (C, T) after their start instead.
    """
    cut_rows = starts[cut, None] + cut_steps
    length = cut_steps.shape[1]
    if len(table) < length:
        return table[cut_rows]
    whole = sliding(table, length)
    # A start so late that no whole stretch follows belongs to a window that is cut.
    result = whole.index_select(0, starts.clamp(max=len(whole) - 1)).view(len(starts), length, *table.shape[1:])
    result[cut] = table[cut_rows]
    return result
