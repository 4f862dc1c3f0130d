"""The Minari datasets on this machine: where they are, and writing one so that it is there whole or not at all."""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari import create_dataset_from_buffers
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage import get_dataset_path

from trajplan.data.environment import spec_to_dict
from trajplan.data.episodes import Episodes
from trajplan.data.scores import ReferenceScores
from trajplan.data.spaces import in_dtype, unflatten_observation
from trajplan.errors import DataError


def dataset_root() -> Path:
    """The folder of the Minari datasets on this machine: `MINARI_DATASETS_PATH`, else `~/.minari/datasets`."""
    try:
        return get_dataset_path()
    except OSError as error:
        folder = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
        raise DataError(
            f"The folder of the Minari datasets, {folder}, cannot be used ({error.strerror}); name another in "
            "MINARI_DATASETS_PATH."
        ) from None


def check_new_id(dataset_id: str) -> None:
    """Refuse an id that Minari does not understand or that the Minari root already holds."""
    try:
        namespace = parse_dataset_id(dataset_id)[0]
    except (ValueError, TypeError) as error:  # TypeError: an id without a version
        raise DataError(f"{dataset_id!r} is not a Minari id; write it like pointmaze/umaze-mixed-v0.") from error
    if namespace is not None and any(len(part) < 2 for part in namespace.split("/")):
        raise DataError(f"{dataset_id!r} is not a Minari id: each part before the last needs two letters or more.")
    folder = dataset_root() / dataset_id
    if folder.exists():
        raise DataError(f"The dataset {dataset_id!r} exists already ({folder}); choose another id or delete it first.")


def write_minari(
    dataset_id: str,
    episodes: Iterable[tuple[EpisodeBuffer, dict[str, Any]]],
    *,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    env_spec: EnvSpec | None = None,
    reference: ReferenceScores | None = None,
    additions: dict[str, Any] | None = None,
    **metadata: Any,
) -> Path:
    """Write `episodes` as a new dataset in the Minari root and return its folder.

    The dataset is built in a hidden folder of the root and renamed when complete: an error or an interrupt, in
    `episodes` itself for instance, leaves nothing behind. Episodes are written as they come, one in memory at a time.

    Args:
        dataset_id: an id that `check_new_id` accepts.
        episodes: each episode and what to note in its metadata (JSON-able values; may be empty).
        observation_space, action_space: the dataset's.
        env_spec: the environment that the data come from; only recorded, never made.
        reference: returns that mean 0 and 100.
        additions: what `DatasetInfo.additions` holds.
        metadata: passed to `minari.create_dataset_from_buffers`: algorithm_name, description, ...
    """
    check_new_id(dataset_id)
    # Minari itself would make the environment, from whatever code it names, to read the spaces; and it stores
    # reference scores only together with one.
    recorded: dict[str, Any] = {} if env_spec is None else {"env_spec": json.dumps(spec_to_dict(env_spec))}
    if reference is not None:
        recorded |= {"ref_min_score": float(reference.min), "ref_max_score": float(reference.max)}
    if additions and any(additions.values()):
        recorded["trajplan"] = additions
    notes: list[dict[str, Any]] = []

    def buffers() -> Iterator[EpisodeBuffer]:
        for episode, note in episodes:
            notes.append(note)
            yield episode

    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=dataset_root()))
    try:
        with _minari_root(staging), warnings.catch_warnings():
            # Minari warns about every optional field that is left out.
            warnings.filterwarnings("ignore", category=UserWarning, module="minari")
            dataset = create_dataset_from_buffers(
                dataset_id, buffers(), observation_space=observation_space, action_space=action_space, **metadata
            )
            dataset.storage.update_episode_metadata(notes)
            dataset.storage.update_metadata(recorded)
        return _put_in_place(staging / dataset_id, dataset_id)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def save_minari(dataset: Episodes, dataset_id: str, description: str | None) -> Path:
    """See `OfflineDataset.save`."""
    info = dataset.info
    try:
        return write_minari(
            dataset_id,
            _buffers(dataset),
            observation_space=info.observation_space,
            action_space=info.action_space,
            env_spec=info.env_spec,
            reference=info.reference,
            additions=info.additions(),
            description=description or f"Saved by trajplan from the dataset {dataset.id}.",
        )
    # h5py raises either of them for a full disk.
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"The dataset {dataset_id!r} cannot be written ({str(error).strip().splitlines()[0]}); free some space or "
            "name another folder in MINARI_DATASETS_PATH."
        ) from None


def _buffers(dataset: Episodes) -> Iterator[tuple[EpisodeBuffer, dict[str, Any]]]:
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


def _put_in_place(built: Path, dataset_id: str) -> Path:
    folder = dataset_root() / dataset_id
    namespace = parse_dataset_id(dataset_id)[0]
    try:
        if namespace is not None and namespace not in list_local_namespaces():
            create_namespace(namespace)
        os.replace(built, folder)
    except OSError as error:
        raise DataError(f"The dataset {dataset_id!r} cannot be put into {folder} ({error.strerror}).") from None
    return folder


@contextmanager
def _minari_root(root: Path) -> Iterator[None]:
    """Point Minari at another root for a while; it reads the variable anew at every call."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
