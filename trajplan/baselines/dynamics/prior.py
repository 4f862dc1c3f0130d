"""Training of the behaviour prior beside a dynamics ensemble, by the same loop (`trajplan.models.behaviour`)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.baselines.dynamics.training import Table, Tell, fit, seeded
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.models.behaviour import BehaviourPrior
from trajplan.models.scaling import Scaling

PROGRESS = "prior-training.safetensors"


def new_prior(info: DatasetInfo, config: DynamicsConfig) -> BehaviourPrior:
    """An untrained prior for a dataset."""
    sizes = (info.observation_dim, info.action_dim, config.model_members, config.model_elites)
    return BehaviourPrior(*sizes, config.prior_hidden, config.prior_steps)


def train_prior(
    dataset: OfflineDataset,
    episodes: tuple[np.ndarray, np.ndarray],
    scaling: Scaling,
    config: DynamicsConfig,
    folder: Path,
    *,
    stopped: Callable[[], bool],
    visible: bool,
    tell: Tell | None = None,
) -> BehaviourPrior | None:
    """Train the prior of a run, or resume; arguments as for `train_ensemble`. None: it was stopped."""
    device = scaling.mean.device
    with seeded(config.seed, device):
        data, held_out = (table_of(dataset, part, scaling, config.prior_steps, device) for part in episodes)
        prior = new_prior(dataset.info, config).to(device)
        done = fit(prior, data, held_out, config, folder / PROGRESS, stopped=stopped, visible=visible, tell=tell)
    return None if done is None else prior


def table_of(
    dataset: OfflineDataset, episodes: np.ndarray, scaling: Scaling, steps: int, device: torch.device
) -> Table:
    """Observations with the action before, and the action with the sum of `steps` rewards from it on.

    Before an episode's first action stand zeros, the middle of the Box; a sum ends with the episode.
    """
    rows = np.concatenate([np.arange(*dataset.offsets[[episode, episode + 1]]) for episode in episodes])
    lengths = dataset.lengths[episodes]
    first, ends = (np.repeat(dataset.offsets[episodes + shift], lengths) for shift in (0, 1))
    taken = scaling.actions(torch.from_numpy(np.array(dataset.actions)).to(device))
    before = torch.where(
        torch.from_numpy(rows > first).to(device)[:, None],
        taken[torch.from_numpy(np.maximum(rows - 1, 0)).to(device)],
        0.0,
    )
    earned = np.concatenate([[0.0], np.cumsum(np.asarray(dataset.rewards, np.float64))])
    sums = (earned[np.minimum(rows + steps, ends)] - earned[rows]).astype(np.float32)
    seen = np.asarray(dataset.observations)[rows + np.repeat(episodes, lengths)]
    inputs = torch.cat([torch.from_numpy(seen).to(device), before], dim=-1)
    actions = taken[torch.from_numpy(rows).to(device)]
    targets = torch.cat([actions, torch.from_numpy(sums).to(device)[:, None]], dim=-1)
    return Table(inputs, targets, torch.zeros(len(rows), dtype=torch.bool, device=device))
