"""What pretraining refuses before it writes anything."""

import numpy as np

from trajplan.data.dataset import OfflineDataset
from trajplan.runs.trackers import check_trackers, tracker_names
from trajplan.training.batches import check_batch
from trajplan.training.config import TrainConfig
from trajplan.training.goals import chosen_columns


def preflight(
    dataset: OfflineDataset, config: TrainConfig
) -> tuple[np.ndarray, tuple[OfflineDataset, np.ndarray] | None]:
    """Try settings on a dataset; the training begins with this.

    Args:
        dataset: what to learn.
        config: settings.

    Returns:
        The numbers of the training episodes; the dataset of those kept out, most often the same, and their numbers in
        it, or None where none are.
    """
    check_trackers(tracker_names(config.trackers))
    # Of how many processes is known once they are there.
    check_batch(config, 1)
    chosen_columns(dataset.info, config)
    if config.held_out > 0:
        training, others, held_out = dataset.hold_out(config.held_out, config.seed)
        return training, (others, held_out)
    return np.arange(dataset.num_episodes), None
