"""The folder of a run: whether there is one, what a new one must not overwrite, and whether it can be resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trajplan.config import require
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo, dataset_ids
from trajplan.errors import CheckpointError, ConfigError, DataError
from trajplan.files import RUN, make_folder, read_json
from trajplan.runs.state import STATES, newest_state

MARKS = ("training.json", "model.safetensors", "metrics.jsonl")
# What else training writes, whatever the method.
WRITTEN = (
    *("config.json", "dataset.json", "planner.json", "tokenizer.json", "tokenizer.safetensors", RUN),
    *("dynamics.safetensors", "model_report.json", "model_report.png", "values.png"),
)


def holds_run(folder: Path) -> bool:
    """Whether a run has begun to write into the folder."""
    return any((folder / name).exists() for name in MARKS)


def resumes(folder: Path, resume: bool) -> bool:
    """Whether a run in the folder is to be resumed; if not, a new one must not overwrite what is there.

    A run that was stopped while it wrote its settings begins again when it is resumed.
    """
    if resume and holds_run(folder):
        return True
    begun = (folder / STATES).exists()
    if holds_run(folder) or (begun and not resume):
        raise CheckpointError(f"{folder} already holds a run: resume it with --resume, or choose another --output.")
    found = [name for name in WRITTEN if (folder / name).exists()]
    if found and not begun:
        raise CheckpointError(
            f"{folder} already holds {', '.join(found)}, which training would overwrite: choose another --output."
        )
    return False


def other_settings(folder: Path) -> str:
    """What to do when a run cannot be resumed as it is, as a sentence."""
    return f"Other settings, such as a lower learning rate, need another --output, or {folder} deleted first."


def make_run_folder(folder: Path) -> None:
    """Make the folder of a run, and first of all in it that of its states, which tells it from a user's folder."""
    make_folder(folder)
    make_folder(folder / STATES)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete state of the run in a folder; None if the run was stopped before its first.

    A folder that holds a model and no state is refused: a new start would replace the model.
    """
    step = newest_state(folder / STATES)
    if step is None and (folder / "model.safetensors").exists():
        raise CheckpointError(
            f"{folder} holds a model but no complete checkpoint in {STATES}/ to resume from; keep the model as it is, "
            "and choose another --output to train anew."
        )
    return step


def saved_datasets(folder: Path) -> list[str]:
    """The ids of the datasets of the run in a folder."""
    values = read_json(folder / "dataset.json")
    if not isinstance(values.get("id"), str):
        raise CheckpointError(f"{folder / 'dataset.json'} names no dataset.")
    return dataset_ids(values)


def open_dataset(dataset: OfflineDataset | str | Sequence[str] | None, folder: Path, resumed: bool) -> OfflineDataset:
    """What a run trains on.

    Args:
        dataset: a dataset, or the Minari id of one, or of several that train as one; None: that of the run.
        folder: the run's.
        resumed: whether there is a run in it that is resumed.
    """
    if isinstance(dataset, OfflineDataset):
        return dataset
    if dataset is not None:
        ids = [dataset] if isinstance(dataset, str) else dataset
        known = isinstance(ids, Sequence) and all(isinstance(id, str) for id in ids)
        require(known, "dataset", repr(dataset), "be an OfflineDataset, a Minari id or several of them")
        return OfflineDataset.from_minari(ids)
    if not resumed:
        raise ConfigError(f"{folder} holds no run that knows its dataset: name one.")
    try:
        return OfflineDataset.from_minari(saved_datasets(folder))
    except DataError as error:
        raise DataError(f"{error} A run on data in memory is resumed where it is given them again.") from None


def refuse_changes(folder: Path, changed: list[str]) -> None:
    """Refuse to resume a run with other settings; `changed` holds a phrase for each difference."""
    if changed:
        raise CheckpointError(
            f"{folder} cannot be resumed with other settings: {'; '.join(changed)}; leave them out, or give another "
            "--output."
        )


def check_same_dataset(folder: Path, info: DatasetInfo) -> None:
    """Refuse to resume a run on another dataset, naming the difference."""
    # As objects, since the form in which spaces are saved has changed.
    before = DatasetInfo.from_dict(read_json(folder / "dataset.json"))
    for name in ("id", "num_transitions", "num_episodes", "observation_space", "action_space"):
        was, now = getattr(before, name), getattr(info, name)
        if now != was:
            raise CheckpointError(
                f"{folder} cannot be resumed on another dataset: its {name} is {now} and was {was}; give that one, or "
                "another --output."
            )


def check_same_state(step: Path, about: dict[str, Any], fingerprint: str, processes: int) -> None:
    """Refuse to resume from a state of other data or another number of processes."""
    if about.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{step} cannot be resumed: the content of the dataset has changed since it was written; give the dataset "
            "as it was, or another --output."
        )
    if about.get("processes") != processes:
        raise CheckpointError(
            f"{step} was written by {about.get('processes')} processes and this run has {processes}: to resume it "
            "exactly needs the same number."
        )
