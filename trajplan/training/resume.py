"""What a run's folder says about continuing it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trajplan.config import C, from_dict, require
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo, dataset_ids
from trajplan.errors import CheckpointError, ConfigError, DataError
from trajplan.files import BASELINE_TYPE, RUN, make_folder, read_json
from trajplan.training.config import TrainConfig, differences
from trajplan.training.state import newest_state

STATES = "training_state"
MARKS = ("training.json", "model.safetensors", "metrics.jsonl")
# What else training writes, for whatever method.
WRITTEN = (
    *("config.json", "dataset.json", "planner.json", "tokenizer.json", "tokenizer.safetensors", RUN),
    *("dynamics.safetensors", "model_report.json", "model_report.png", "values.png"),
)


def holds_run(folder: Path) -> bool:
    """Whether a run has begun to write into the folder."""
    return any((folder / name).exists() for name in MARKS)


def refuse_existing(folder: Path, *, resume: bool) -> None:
    """Keep a new run from overwriting an old one, or files that are no run's.

    Args:
        folder: the run's.
        resume: whether a run that was stopped while it wrote its settings may begin again.

    Raises:
        CheckpointError: if the folder holds a run, or a file of a name that training writes.
    """
    begun = (folder / STATES).exists()
    if holds_run(folder) or (begun and not resume):
        raise CheckpointError(f"{folder} already holds a run: continue it with --resume, or choose another --output.")
    found = [name for name in WRITTEN if (folder / name).exists()]
    if found and not begun:
        raise CheckpointError(
            f"{folder} already holds {', '.join(found)}, which training would write over: choose another --output."
        )


def other_settings(folder: Path) -> str:
    """What to do when a run cannot go on as it is, as a sentence."""
    return f"Other settings, such as a lower learning rate, need another --output, or {folder} deleted first."


def make_run_folder(folder: Path) -> None:
    """Make the folder of a run, and first of all in it that of its checkpoints, which tells it from a user's folder.

    Raises:
        CheckpointError: if that is not possible.
    """
    make_folder(folder)
    make_folder(folder / STATES)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of the run in a folder; None if the run was stopped before its first.

    Raises:
        CheckpointError: if the folder holds a model and no whole checkpoint: a new start would replace the model.
    """
    step = newest_state(folder / STATES)
    if step is None and (folder / "model.safetensors").exists():
        raise CheckpointError(
            f"{folder} holds a model but no whole checkpoint in {STATES}/ to continue from; keep the model as it is, "
            "and choose another --output to train anew."
        )
    return step


def saved_config(folder: Path) -> TrainConfig:
    """The resolved settings of the run in a folder.

    Raises:
        CheckpointError: if there is none, it was made by an incompatible version, or it is a baseline's.
    """
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    if config.get("model_type") == BASELINE_TYPE:
        method = config.get("method")
        raise CheckpointError(
            f"{folder} holds a run of {method}, which trajplan train cannot resume: give trajplan baseline {method} "
            "--resume, or another --output."
        )
    return _saved(TrainConfig, folder / "training.json")


def saved_datasets(folder: Path) -> list[str]:
    """The ids of the datasets of the run in a folder.

    Raises:
        CheckpointError: if it is not recorded.
    """
    values = read_json(folder / "dataset.json")
    if not isinstance(values.get("id"), str):
        raise CheckpointError(f"{folder / 'dataset.json'} names no dataset.")
    return dataset_ids(values)


def open_dataset(dataset: OfflineDataset | str | Sequence[str] | None, folder: Path, continued: bool) -> OfflineDataset:
    """What a run trains on.

    Args:
        dataset: a dataset, or the Minari id of one, or of several that train as one; None: that of the run.
        folder: the run's.
        continued: whether there is a run in it that is continued.

    Raises:
        ConfigError: for something else, or for None where there is no run.
        CheckpointError: if the run does not know its dataset.
        DataError: if it is not there or cannot be used.
    """
    if isinstance(dataset, OfflineDataset):
        return dataset
    if dataset is not None:
        ids = [dataset] if isinstance(dataset, str) else dataset
        known = isinstance(ids, Sequence) and all(isinstance(id, str) for id in ids)
        require(known, "dataset", repr(dataset), "be an OfflineDataset, a Minari id or several of them")
        return OfflineDataset.from_minari(ids)
    if not continued:
        raise ConfigError(f"{folder} holds no run that knows its dataset: name one.")
    try:
        return OfflineDataset.from_minari(saved_datasets(folder))
    except DataError as error:
        raise DataError(f"{error} A run on data in memory goes on where it is given them again.") from None


def check_same_settings(folder: Path, config: TrainConfig) -> None:
    """Refuse to continue a run with other settings; more updates lengthen it.

    Raises:
        CheckpointError: naming each difference.
    """
    before = saved_config(folder)
    if (config.updates or 0) > (before.updates or 0):
        config = replace(config, updates=before.updates)
    refuse_changes(folder, differences(config, before))


def refuse_changes(folder: Path, changed: list[str]) -> None:
    """Refuse to continue a run with settings that have changed.

    Args:
        folder: the run's.
        changed: a phrase for each difference; empty: there is none.

    Raises:
        CheckpointError: naming each difference.
    """
    if changed:
        raise CheckpointError(
            f"{folder} cannot be resumed with other settings: {'; '.join(changed)}; leave them out, or give another "
            "--output."
        )


def check_same_dataset(folder: Path, info: DatasetInfo) -> None:
    """Refuse to continue a run on another dataset.

    Raises:
        CheckpointError: naming the difference.
    """
    before = read_json(folder / "dataset.json")
    now = info.to_dict()
    for name in ("id", "num_transitions", "num_episodes", "observation_space", "action_space"):
        if now[name] != before.get(name):
            raise CheckpointError(
                f"{folder} cannot be resumed on another dataset: its {name} is {now[name]} and was {before.get(name)}; "
                "give that one, or another --output."
            )


def check_same_state(step: Path, about: dict[str, Any], fingerprint: str, processes: int) -> None:
    """Refuse to continue from a checkpoint of other data or another number of processes.

    Raises:
        CheckpointError: naming the difference.
    """
    if about.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{step} cannot be resumed: the content of the dataset has changed since it was written; give the dataset "
            "as it was, or another --output."
        )
    if about.get("processes") != processes:
        raise CheckpointError(
            f"{step} was written by {about.get('processes')} processes and this run has {processes}: an exact "
            "continuation needs the same number."
        )


def _saved(config_class: type[C], path: Path) -> C:
    try:
        return from_dict(config_class, read_json(path))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
