"""What a method sees of a dataset, and how its actions become the environment's again.

Everything is transformed once, before training, so that a batch is one gather. The dataset itself stays as it is:
what is reported is always in the environment's own rewards.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from trajplan.baselines.engine.settings import RunConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError

# Scale and shift of the reward transforms that do not depend on the dataset.
FIXED_TRANSFORMS = {"none": (1.0, 0.0), "minus-one": (1.0, -1.0), "times-ten-minus-five": (10.0, -5.0)}

# Keeps noise in a nearly constant dimension from being blown up.
SMALLEST_STD = 1e-3


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
        """The scaling for a dataset's spaces; without statistics observations stay as they are.

        Raises:
            ConfigError: if a dimension of the actions has no bounds.
        """
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


def fit_scaling(dataset: OfflineDataset, standardize: bool) -> Scaling:
    """The scaling that a run on a dataset uses.

    Raises:
        ConfigError: if the actions have no bounds.
    """
    if not standardize:
        return Scaling.of(dataset.info)
    statistics = dataset.statistics()
    std = torch.from_numpy(statistics.std).clamp(min=SMALLEST_STD)
    return Scaling.of(dataset.info, torch.from_numpy(statistics.mean), std)


def scaled_dataset(
    dataset: OfflineDataset, scaling: Scaling, reward_scale: float, reward_shift: float
) -> OfflineDataset:
    """A copy of the dataset as a method sees it, rewards times the scale plus the shift."""
    return replace(
        dataset,
        observations=scaling.observations(torch.from_numpy(np.array(dataset.observations))).numpy(),
        actions=scaling.actions(torch.from_numpy(np.array(dataset.actions))).numpy(),
        rewards=(np.asarray(dataset.rewards) * np.float32(reward_scale) + np.float32(reward_shift)).astype(np.float32),
    )


def reward_transform(dataset: OfflineDataset, name: str) -> tuple[float, float]:
    """Scale and shift of a reward transform (`RunConfig.reward_transform`).

    Raises:
        ConfigError: if all episodes have the same return, which then cannot set a scale.
    """
    if name in FIXED_TRANSFORMS:
        return FIXED_TRANSFORMS[name]
    spread = float(dataset.returns.max() - dataset.returns.min())
    if spread <= 0:
        raise ConfigError(
            f"reward_transform is {name}, but all episodes of dataset {dataset.id!r} have the same return: give "
            "--reward-transform none."
        )
    return 1000.0 / spread, 0.0


def training_episodes(dataset: OfflineDataset, config: RunConfig) -> np.ndarray | None:
    """The numbers of the episodes of highest return that a run trains on, at least one; None: all."""
    if config.top_fraction == 1:
        return None
    count = max(1, round(config.top_fraction * dataset.num_episodes))
    return np.sort(np.argsort(-dataset.returns, kind="stable")[:count])
