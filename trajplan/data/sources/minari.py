"""Minari datasets: found or downloaded, described, read episode by episode, and opened through the cache."""

import difflib
import json
import os
import shutil
import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gymnasium
import h5py
import minari
from minari import MinariDataset
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
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo, package_versions
from trajplan.data.scores import ReferenceScores, reference_for_environment
from trajplan.data.sources.minari_root import dataset_root
from trajplan.data.sources.together import describe_together, with_sizes
from trajplan.data.validate import FIELDS, Episode, check_episode
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


def open_minari(ids: Sequence[str], cache_dir: str | Path | None) -> OfflineDataset:
    """See `OfflineDataset.from_minari`."""
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
                f"The cache entry of dataset {info.id!r} in {cache} vanished while it was opened; try again."
            )
    arrays, summary = entry
    episodes = [int(source.storage.metadata["total_episodes"]) for source in sources]
    info = with_sizes(replace(info, **summary), episodes, arrays["offsets"])
    return OfflineDataset(id=info.id, info=info, **arrays)


def find_minari(id: str) -> MinariDataset:
    """The Minari dataset of this id, downloaded when it is not on this machine.

    Raises:
        DataError: for a malformed or unknown id, a missing network or damaged metadata.
    """
    match = DATASET_ID_RE.fullmatch(id)
    if match is None or match["version"] is None:
        raise DataError(f"{id!r} is not a Minari id; ids look like mujoco/hopper/medium-v0.{_suggestion(id)}")
    path = dataset_root() / id
    if not (path / "data").exists():
        _download(id, path)
    try:
        source = minari.load_dataset(id)
        int(source.storage.metadata["total_episodes"])
        return source
    except ImportError as error:
        raise DataError(f"dataset {id!r} is in a format that needs another package: {_line(error)}") from None
    except _DAMAGE as error:
        raise DataError(
            f"dataset {id!r}: its metadata in {path} cannot be read ({_line(error)}); remove the folder and fetch or "
            "make the dataset again."
        ) from None


def describe(source: MinariDataset) -> DatasetInfo:
    """Spaces, environment, reference scores and versions of a Minari dataset, its sizes still left out.

    Raises:
        DataError: for a space that is not supported.
    """
    metadata = source.storage.metadata
    spec = source._eval_env_spec or source.env_spec
    return DatasetInfo(
        id=source.id,
        observation_space=source.observation_space,
        action_space=source.action_space,
        env_spec=spec,
        reference=_reference(source.id, metadata, spec and spec.id),
        versions={**package_versions(), "dataset": source.minari_version},
    )


def read_episodes(source: MinariDataset) -> Iterator[Mapping[str, Any]]:
    """The recorded episodes in order, one in memory at a time, without their infos.

    Raises:
        DataError: when the files are damaged or hold fewer episodes than the metadata says.
    """
    path = Path(source.storage.data_path)
    total = int(source.storage.metadata["total_episodes"])
    if total == 0:
        raise DataError(f"dataset {source.id!r} has no episodes.")
    read = _read_hdf5 if source.storage.FORMAT == "hdf5" else _read_by_minari
    episode = 0
    try:
        for raw in read(source, total):
            yield raw
            episode += 1
    except _DAMAGE as error:
        raise DataError(
            f"dataset {source.id!r}, episode {episode}: the file in {path} is damaged or half-written "
            f"({_line(error)}); remove it and fetch or make the dataset again."
        ) from None


def _read_hdf5(source: MinariDataset, total: int) -> Iterator[Mapping[str, Any]]:
    # Minari's own reader decodes every episode's infos too, which can be most of the file.
    with h5py.File(Path(source.storage.data_path) / "main_data.hdf5", "r") as file:
        for episode in range(total):
            group = file[f"episode_{episode}"]
            yield {name: _read(group[name]) for name in FIELDS}


def _read_by_minari(source: MinariDataset, total: int) -> Iterator[Mapping[str, Any]]:
    yield from source.storage.get_episodes(range(total))


def _checked(source: MinariDataset, info: DatasetInfo, stamp: list[list[Any]]) -> Iterator[Episode]:
    for index, raw in enumerate(read_episodes(source)):
        yield check_episode(raw, info, index)
    # The entry is filed under the content's key: it must be that content that was read.
    check_unchanged(Path(source.storage.data_path), stamp)


def _read(node: Any) -> Any:
    if isinstance(node, h5py.Group):
        return {key: _read(node[key]) for key in node}
    return node[()]


def _reference(id: str, metadata: Mapping[str, Any], env_id: str | None) -> ReferenceScores | None:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is not None and high is not None:
        try:
            return ReferenceScores(float(low), float(high), source="the dataset")
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"dataset {id!r}: its ref_min_score and ref_max_score cannot be used: {error}") from None
    return reference_for_environment(env_id) if env_id else None


def _download(id: str, path: Path) -> None:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    missing = f"There is no Minari dataset {id!r} in {dataset_root()}"
    remote = os.environ.get("MINARI_REMOTE", "hf://farama-minari")
    if constants.HF_HUB_OFFLINE or (remote.startswith("hf://") and not _reachable(constants.ENDPOINT)):
        raise DataError(f"{missing}, and without a network it cannot be downloaded.{_suggestion(id)}")
    # The hub's HTTP client differs between its versions; its errors share the base of HfHubHTTPError.
    transport: type[Exception] = HfHubHTTPError.__mro__[1]
    existed = path.exists()
    try:
        minari.load_dataset(id, download=True)
    except (OSError, ValueError, ImportError, transport) as error:
        raise DataError(f"{missing}, and it cannot be downloaded: {_line(error)}{_suggestion(id)}") from None
    finally:
        # A download cut short leaves files that would be taken for the dataset next time.
        if not existed and not (path / "data" / "metadata.json").exists():
            shutil.rmtree(path, ignore_errors=True)


def _reachable(endpoint: str) -> bool:
    """Whether a connection to the hub can be opened; without this its client retries for half a minute."""
    if urllib.request.getproxies():
        return True
    url = urlsplit(endpoint)
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def list_datasets() -> list[dict[str, Any]]:
    """The Minari datasets on this machine, in order.

    Each has id, num_episodes, num_transitions, megabytes, environment (or None) and problem, which is None or says why
    a folder that looks like a dataset is none; then the numbers are missing.
    """
    root = dataset_root()
    rows = []
    for id in _local_ids():
        row: dict[str, Any] = {"id": id, "problem": None}
        try:
            metadata = json.loads((root / id / "data" / "metadata.json").read_text())
            row["num_episodes"] = int(metadata["total_episodes"])
            row["num_transitions"] = int(metadata["total_steps"])
            row["megabytes"] = float(metadata.get("dataset_size", 0.0))
            row["environment"] = json.loads(metadata.get("env_spec") or '{"id": null}')["id"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            row["problem"] = f"damaged: metadata.json cannot be read ({_line(error)})"
        rows.append(row)
    return rows


def _local_ids() -> list[str]:
    root = dataset_root()
    ids = []
    for folder, subfolders, _ in os.walk(root, followlinks=True):
        if "data" in subfolders and folder != str(root):
            ids.append(Path(folder).relative_to(root).as_posix())
            subfolders.clear()
        # Hidden folders are datasets being written; a link to a folder above would never end.
        above = {os.path.realpath(path) for path in (Path(folder), *Path(folder).parents)}
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) not in above
        ]
    return sorted(ids)


def _suggestion(id: str) -> str:
    close = difflib.get_close_matches(id, _local_ids(), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else " `trajplan datasets list` shows what is here."


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
