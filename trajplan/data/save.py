"""A dataset as a Minari dataset on this machine: the way back of reading one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from trajplan.data.collection.minari_write import write_minari
from trajplan.data.dataset import OfflineDataset
from trajplan.data.spaces import in_dtype, unflatten_observation
from trajplan.errors import DataError


def save_minari(dataset: OfflineDataset, dataset_id: str, description: str | None) -> Path:
    """See `OfflineDataset.save`."""
    info = dataset.info
    try:
        return write_minari(
            dataset_id,
            _episodes(dataset),
            observation_space=info.observation_space,
            action_space=info.action_space,
            env_spec=info.env_spec,
            reference=info.reference,
            description=description or f"The dataset {dataset.id} as trajplan held it.",
        )
    # h5py has either of them for a full disk.
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"The dataset {dataset_id!r} cannot be written ({str(error).strip().splitlines()[0]}); free some space or "
            "name another folder in MINARI_DATASETS_PATH."
        ) from None


def _episodes(dataset: OfflineDataset) -> Iterator[tuple[EpisodeBuffer, dict[str, Any]]]:
    layout, space = dataset.info.observation_layout, dataset.info.action_space
    for episode, (begin, end) in enumerate(zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)):
        observations = np.asarray(dataset.observations[begin + episode : end + episode + 1])
        buffer = EpisodeBuffer(
            observations=unflatten_observation(layout, observations),
            actions=_actions(np.asarray(dataset.actions[begin:end]), space),
            rewards=np.asarray(dataset.rewards[begin:end]),
            terminations=np.asarray(dataset.terminations[begin:end]),
            truncations=np.asarray(dataset.truncations[begin:end]),
        )
        yield buffer, {}


def _actions(flat: np.ndarray, space: spaces.Space) -> np.ndarray:
    # What was recorded, not what the environment would take: nothing is clipped.
    if isinstance(space, spaces.Discrete):
        return flat[:, 0].astype(np.int64) + int(space.start)
    assert isinstance(space, spaces.Box)
    return in_dtype(flat.reshape(len(flat), *space.shape), space.dtype)
