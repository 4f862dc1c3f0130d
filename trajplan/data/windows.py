"""Windows of consecutive transitions of one episode, gathered in batches on any device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.data.transitions import as_tensor, check_episodes
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

    A window never leaves its episode: what sticks out is padding, marked by `valid == False`. A window's transitions
    are the rows that `gather_rows` gives, which also index whatever else is kept one row a transition (tokens).

    Attributes:
        length: T, transitions a window.
        starts: (W,) int64, the row of each window's first transition.
        ends: (W,) int64, one past the row of the last transition of its episode.
    """

    def __init__(
        self,
        dataset: OfflineDataset,
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
        chosen = check_episodes(dataset, episodes)
        counts = -(-dataset.lengths[chosen] // stride)
        before = np.cumsum(counts) - counts
        starts = np.repeat(dataset.offsets[chosen] - before * stride, counts) + np.arange(counts.sum()) * stride
        self.starts = torch.from_numpy(starts).to(self._device)
        self.ends = torch.from_numpy(np.repeat(dataset.offsets[chosen + 1], counts)).to(self._device)
        self._bounds = as_tensor(dataset.offsets[1:], self._device)
        self._steps = torch.arange(length, device=self._device)
        self._arrays: tuple[torch.Tensor, ...] | None = None

    def __len__(self) -> int:
        """W, the number of windows."""
        return len(self.starts)

    def episode_of(self, index: torch.Tensor) -> torch.Tensor:
        """Episode of each window, (B,) int64."""
        return torch.searchsorted(self._bounds, self.starts[index], right=True)

    def gather_rows(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the windows' transitions.

        Args:
            index: (B,) int64 window numbers, on the views' device.

        Returns:
            rows (B, T) int64, held at the episode's last row beyond its end; valid (B, T) bool.
        """
        rows = self.starts[index, None] + self._steps
        last = self.ends[index, None] - 1
        return torch.minimum(rows, last), rows <= last

    def batch(self, index: torch.Tensor) -> WindowBatch:
        """Observations, actions and rewards of the windows `index` (B,)."""
        if self._arrays is None:
            dataset = self._dataset
            arrays = (dataset.observations, dataset.actions, dataset.rewards)
            self._arrays = tuple(as_tensor(array, self._device) for array in arrays)
        observations, actions, rewards = self._arrays
        rows, valid = self.gather_rows(index)
        # The store has one observation more in each episode before this one.
        observation_rows = rows + self.episode_of(index)[:, None]
        return WindowBatch(observations[observation_rows], actions[rows], rewards[rows], valid)
