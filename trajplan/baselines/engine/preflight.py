"""What the training of a baseline refuses before it writes anything."""

from typing import Any, NamedTuple

import numpy as np

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.dynamics.training import model_split
from trajplan.baselines.engine.scaling import fit_scaling, reward_transform, training_episodes
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.terminals import check_terminals
from trajplan.baselines.registry import method_named
from trajplan.baselines.settings import GoalConfig
from trajplan.config import require
from trajplan.data.dataset import OfflineDataset
from trajplan.data.goals import goal_columns
from trajplan.errors import ConfigError
from trajplan.models.scaling import Scaling
from trajplan.runs.trackers import check_trackers, tracker_names


class Ready(NamedTuple):
    """What a training begins with.

    Attributes:
        method_class: of the method, for the dataset's actions.
        scaling: of observations and actions.
        reward: scale and shift of the rewards.
        episodes: numbers of those trained on; None: all.
        split: training and held-out episodes of the dynamics model, of a method that has one.
    """

    method_class: Any
    scaling: Scaling
    reward: tuple[float, float]
    episodes: np.ndarray | None
    split: tuple[np.ndarray, np.ndarray] | None


def preflight(dataset: OfflineDataset, name: str, config: Any, run_config: RunConfig) -> Ready:
    """Try a method and its settings on a dataset; the training begins with this."""
    check_trackers(tracker_names(run_config.trackers))
    method_class = method_named(name).method_class(dataset.info)
    scaling = fit_scaling(dataset, run_config.standardize)
    reward = reward_transform(dataset, run_config.reward_transform)
    episodes = training_episodes(dataset, run_config)
    check_terminals(dataset, config)
    if isinstance(config, GoalConfig):
        columns = goal_columns(dataset.info)
        if config.whole_goals and columns != tuple(range(dataset.info.observation_dim)):
            raise ConfigError(
                f"{name} learns distances between whole observations, and a goal of dataset {dataset.info.id!r} holds "
                f"columns {list(columns)} of {dataset.info.observation_dim}; gcivl takes such goals."
            )
        transform = run_config.reward_transform
        require(transform == "none", "reward_transform", transform, f"be none for {name}, whose rewards tell of goals")
    model_based = isinstance(config, ModelBasedConfig)
    split = model_split(dataset, episodes, config, run_config.seed) if model_based else None
    return Ready(method_class, scaling, reward, episodes, split)
