"""What a method's training refuses and works out before its first update, with nothing written yet."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.dynamics.training import model_split
from trajplan.baselines.engine.scaling import Scaling, fit_scaling, reward_transform, training_episodes
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.terminals import check_terminals
from trajplan.baselines.registry import method_named
from trajplan.data.dataset import OfflineDataset
from trajplan.runs.trackers import check_trackers, tracker_names


@dataclass(frozen=True)
class Prepared:
    """What a run needs to know of its dataset.

    Attributes:
        method_class: for the dataset's actions.
        scaling: of observations and actions.
        transform: scale and shift of the rewards that the method sees.
        episodes: those to train on; None: all.
        split: the training and held-out episodes of the dynamics model; None for a method without one.
    """

    method_class: Any
    scaling: Scaling
    transform: tuple[float, float]
    episodes: np.ndarray | None
    split: tuple[np.ndarray, np.ndarray] | None


def preflight(dataset: OfflineDataset, name: str, config: Any, run_config: RunConfig) -> Prepared:
    """Refuse what cannot be trained: `trajplan.baselines.engine.trainer.train` begins with this.

    Args:
        dataset: what to learn from.
        name, config: the method and its settings.
        run_config: settings of the run.

    Raises:
        ConfigError: for an unknown method, one that does not fit the dataset's actions, actions without bounds, a
            reward transform that the dataset does not allow, or a tracker that is not installed.
        DataError: for a dataset that the method cannot learn from.
    """
    check_trackers(tracker_names(run_config.trackers))
    method_class = method_named(name).method_class(dataset.info)
    scaling = fit_scaling(dataset, run_config.standardize)
    transform = reward_transform(dataset, run_config.reward_transform)
    episodes = training_episodes(dataset, run_config)
    check_terminals(dataset, config)
    learns_model = isinstance(config, ModelBasedConfig)
    split = model_split(dataset, episodes, config, run_config.seed) if learns_model else None
    return Prepared(method_class, scaling, transform, episodes, split)
