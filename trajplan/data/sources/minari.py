"""Minari datasets: listed, found or downloaded, described, and read through the cache."""

import difflib
import json
import os
import shutil
import socket
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gymnasium
import minari
import numpy as np
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from minari import MinariDataset
from minari.dataset.episode_data import EpisodeData
from minari.dataset.minari_dataset import DATASET_ID_RE

from trajplan.data.cache import (
    build_entry,
    cache_folder,
    check_unchanged,
    content_key,
    key_together,
    open_entry,
    source_stamp,
)
from trajplan.data.environment import spec_from_dict
from trajplan.data.info import DatasetInfo, package_versions, read_additions
from trajplan.data.minari_files import dataset_root
from trajplan.data.scores import ReferenceScores, reference_for_environment
from trajplan.data.together import describe_together, with_sizes
from trajplan.data.validate import Episode, check_episode
from trajplan.errors import DataError

# What reading a file that is cut short or overwritten raises, in h5py, pyarrow, json, Minari and Gymnasium.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    gymnasium.error.Error,
)
# What a failing download raises; the hub's HTTP client differs between its versions, but not the base of its errors.
_TRANSPORT: tuple[type[Exception], ...] = (OSError, ValueError, ImportError, HfHubHTTPError.__mro__[1])


def read_minari(ids: Sequence[str], cache_dir: str | Path | None) -> tuple[dict[str, np.ndarray], DatasetInfo]:
    """Arrays (memory maps of the cache) and description: see `OfflineDataset.from_minari`."""
    sources = [find_minari(id) for id in ids]
    infos = [describe(source) for source in sources]
    info = describe_together(infos)
    folders = [Path(source.storage.data_path) for source in sources]
    cache = cache_folder(cache_dir)
    stamps = [source_stamp(folder) for folder in folders]
    key = key_together([content_key(folder, cache) for folder in folders])
    entry = open_entry(cache, key)
    if entry is None:
        build_entry(cache, key, chain.from_iterable(map(_checked, sources, infos, stamps)))
        entry = open_entry(cache, key)
        if entry is None:
            raise DataError(
                f"The cache entry of dataset {info.id!r} in {cache} disappeared while it was opened; try again."
            )
    arrays, summary = entry
    episodes = [source.total_episodes for source in sources]
    return arrays, with_sizes(replace(info, **summary), episodes, arrays["offsets"])


def find_minari(id: str) -> MinariDataset:
    """The Minari dataset of this id, downloaded when it is not on this machine."""
    match = DATASET_ID_RE.fullmatch(id)
    if match is None or match["version"] is None:
        raise DataError(f"{id!r} is not a Minari id; ids look like mujoco/hopper/medium-v0.{_suggestion(id)}")
    path = dataset_root() / id
    if not (path / "data").exists():
        _download(id, path)
    try:
        return minari.load_dataset(id)
    except ImportError as error:
        raise DataError(f"dataset {id!r} is in a format that needs another package: {_line(error)}") from None
    except _DAMAGE as error:
        raise DataError(
            f"dataset {id!r}: its metadata in {path} cannot be read ({_line(error)}); remove the folder, then "
            "download or make the dataset again."
        ) from None


def describe(source: MinariDataset) -> DatasetInfo:
    """Spaces, environment, reference scores and versions of a Minari dataset, without its sizes."""
    metadata = source.storage.metadata
    recorded = metadata.get("eval_env_spec") or metadata.get("env_spec")
    spec = spec_from_dict(json.loads(recorded)) if recorded else None
    try:
        additions = read_additions(metadata.get("trajplan", {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"dataset {source.id!r}: what its metadata say under 'trajplan' is damaged: {error}.") from None
    return DatasetInfo(
        id=source.id,
        observation_space=source.observation_space,
        action_space=source.action_space,
        env_spec=spec,
        reference=_reference(source.id, metadata, spec.id if spec else None),
        versions={**package_versions(), "dataset": source.minari_version},
        **additions,
    )


def read_episodes(source: MinariDataset) -> Iterator[EpisodeData]:
    """The recorded episodes in order, one in memory at a time.

    Minari decodes the episodes' infos, too; reading the file without them is no more than 1.1 to 1.8 times as fast
    (`benchmarks/results/minari_read.json`).
    """
    if source.total_episodes == 0:
        raise DataError(f"dataset {source.id!r} has no episodes.")
    episode = 0
    try:
        for raw in source:
            yield raw
            episode += 1
    except _DAMAGE as error:
        raise DataError(
            f"dataset {source.id!r}, episode {episode}: the file in {source.storage.data_path} is damaged or "
            f"half-written ({_line(error)}); remove it, then download or make the dataset again."
        ) from None


def _checked(source: MinariDataset, info: DatasetInfo, stamp: list[list[Any]]) -> Iterator[Episode]:
    for index, raw in enumerate(read_episodes(source)):
        yield check_episode(raw, info, index)
    # The entry is filed under the content's key: it must be that content that was read.
    check_unchanged(Path(source.storage.data_path), stamp)


def _reference(id: str, metadata: Mapping[str, Any], env_id: str | None) -> ReferenceScores | None:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is not None and high is not None:
        try:
            return ReferenceScores(float(low), float(high), source="the dataset")
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"dataset {id!r}: its ref_min_score and ref_max_score cannot be used: {error}") from None
    return reference_for_environment(env_id) if env_id else None


def _download(id: str, path: Path) -> None:
    missing = f"There is no Minari dataset {id!r} in {dataset_root()}"
    if not _remote_reachable():
        raise DataError(f"{missing}, and without a network it cannot be downloaded.{_suggestion(id)}")
    existed = path.exists()
    try:
        minari.load_dataset(id, download=True)
    except _TRANSPORT as error:
        raise DataError(f"{missing}, and it cannot be downloaded: {_line(error)}{_suggestion(id)}") from None
    finally:
        # A download cut short leaves files that would be taken for the dataset next time.
        if not existed and not (path / "data" / "metadata.json").exists():
            shutil.rmtree(path, ignore_errors=True)


def _remote_reachable() -> bool:
    remote = os.environ.get("MINARI_REMOTE", "hf://farama-minari")
    return not constants.HF_HUB_OFFLINE and (not remote.startswith("hf://") or _reachable(constants.ENDPOINT))


def _reachable(endpoint: str) -> bool:
    """Whether a connection to the hub can be opened; its own client would retry for half a minute."""
    if urllib.request.getproxies():
        return True
    url = urlsplit(endpoint)
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def list_datasets(remote: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """The Minari datasets on this machine, or those that can be downloaded, as Minari lists them.

    Returns:
        a row per dataset with id, num_episodes, num_transitions, megabytes and environment (or None); and a sentence
        per folder that looks like a dataset but is not one.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _list_remote() if remote else _list_local()
    rows, problems = [], [str(warning.message).splitlines()[0] for warning in caught]
    for id, metadata in found.items():
        try:
            row = {
                "id": id,
                "num_episodes": int(metadata["total_episodes"]),
                "num_transitions": int(metadata["total_steps"]),
                "megabytes": float(metadata.get("dataset_size", 0.0)),
                "environment": json.loads(metadata.get("env_spec") or "{}").get("id"),
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"Misconfigured dataset named {id}: {_line(error)}")
        else:
            rows.append(row)
    return rows, problems


def _list_local() -> dict[str, dict[str, Any]]:
    root = dataset_root()
    try:
        return minari.list_local_datasets()
    # Minari stops at the first folder whose name is not an id; without a version that is a TypeError.
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"The datasets in {root} cannot be listed ({_line(error)}); each dataset's folder needs a Minari id "
            "for a name, such as mujoco/hopper/medium-v0."
        ) from None


def _list_remote() -> dict[str, dict[str, Any]]:
    if not _remote_reachable():
        raise DataError("The datasets that can be downloaded cannot be listed without a network.")
    try:
        return minari.list_remote_datasets(compatible_minari_version=True)
    except _TRANSPORT as error:
        raise DataError(f"The datasets that can be downloaded cannot be listed: {_line(error)}.") from None


def _suggestion(id: str) -> str:
    try:
        rows, _ = list_datasets()
    except DataError:  # Another folder has an odd name: not the error to report here.
        rows = []
    close = difflib.get_close_matches(id, [row["id"] for row in rows], n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else " `trajplan datasets list` shows what is here."


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
