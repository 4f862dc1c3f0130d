"""What a method sees of a dataset.

Everything is transformed once, before training, so that a batch is one gather. The dataset itself stays as it is:
what is reported is always in the environment's own rewards.
"""

from dataclasses import replace

import numpy as np
import torch

from trajplan.baselines.engine.settings import RunConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError
from trajplan.models.scaling import Scaling

# Scale and shift of the reward transforms that do not depend on the dataset.
FIXED_TRANSFORMS = {"none": (1.0, 0.0), "minus-one": (1.0, -1.0), "times-ten-minus-five": (10.0, -5.0)}

# Keeps noise in a nearly constant dimension from being blown up.
SMALLEST_STD = 1e-3


def fit_scaling(dataset: OfflineDataset, standardize: bool) -> Scaling:
    """The scaling that a run on a dataset uses."""
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
    """Scale and shift of a reward transform (`RunConfig.reward_transform`)."""
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
