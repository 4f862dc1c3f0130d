"""Between an environment's units and those in which networks of policies and values see them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError


@dataclass(frozen=True)
class Scaling:
    """Observations standardised, Box actions in [-1, 1], Discrete ones as they are.

    Attributes:
        mean, std: (S,) float32 of the observations.
        low, high: (A,) float32, the Box; None for Discrete actions.
    """

    mean: Tensor
    std: Tensor
    low: Tensor | None
    high: Tensor | None

    @classmethod
    def of(cls, info: DatasetInfo, mean: Tensor | None = None, std: Tensor | None = None) -> "Scaling":
        """The scaling for a dataset's spaces; without statistics observations stay as they are."""
        size = info.observation_dim
        mean = torch.zeros(size) if mean is None else mean
        std = torch.ones(size) if std is None else std
        space = info.action_space
        if not isinstance(space, spaces.Box):
            return cls(mean, std, None, None)
        low, high = (np.asarray(bound, np.float32).reshape(-1) for bound in (space.low, space.high))
        _check_bounds(info, low, high)
        return cls(mean, std, torch.from_numpy(low), torch.from_numpy(high))

    def to(self, device: torch.device) -> "Scaling":
        """The same on a device."""
        parts = (self.mean, self.std, self.low, self.high)
        return Scaling(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]

    def observations(self, observations: Tensor) -> Tensor:
        """(..., S), as the method sees them."""
        return (observations - self.mean) / self.std

    def goals(self, goals: Tensor, columns: Sequence[int]) -> Tensor:
        """(..., G) of an observation's columns, as the method sees them."""
        index = torch.tensor(columns, device=self.mean.device)
        return (goals - self.mean[index]) / self.std[index]

    def environment_observations(self, observations: Tensor) -> Tensor:
        """The inverse, (..., S)."""
        return self.mean + observations * self.std

    def actions(self, actions: Tensor) -> Tensor:
        """Recorded actions (..., A), as the method sees them: what lies outside the Box is clipped to it."""
        if self.low is None or self.high is None:
            return actions
        return (2 * (actions - self.low) / (self.high - self.low) - 1).clamp(-1, 1)

    def environment_actions(self, actions: Tensor) -> Tensor:
        """The inverse, (..., A), never outside the Box."""
        if self.low is None or self.high is None:
            return actions
        scaled = self.low + (actions + 1) / 2 * (self.high - self.low)
        return torch.minimum(torch.maximum(scaled, self.low), self.high)


def _check_bounds(info: DatasetInfo, low: np.ndarray, high: np.ndarray) -> None:
    bad = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high) & (low < high)))
    if bad.size:
        dimensions = f"dimension{'s' if bad.size > 1 else ''} {', '.join(map(str, bad[:9]))}{', ...' * (bad.size > 9)}"
        raise ConfigError(
            f"Every baseline needs actions with finite bounds, low below high, and those of dataset {info.id!r} have "
            f"none in {dimensions} ({low[bad[0]]:g} to {high[bad[0]]:g}): make it with "
            "OfflineDataset.from_episodes(..., env_spec=...), which takes the environment's, or with action_space=..."
        )
