"""The cells of a comparison, one for each method and seed: a folder, a record and a command each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trajplan.comparison.settings import EvaluationConfig, changed_flags, set_words, split_planner, todays_names
from trajplan.config import to_dict
from trajplan.data.scores import GIVEN, ReferenceScores
from trajplan.errors import CheckpointError, ConfigError, DataError
from trajplan.files import read_json, write_json
from trajplan.planners.registry import DEFAULT
from trajplan.runs.metrics import read_metrics

SCHEMA_VERSION = 1
RECORD = "cell.json"
WEIGHTS = "model.safetensors"
COST = ("updates", "training_seconds", "updates_per_second", "peak_memory_bytes", "gpu_memory_bytes", "device")


@dataclass(frozen=True)
class Cell:
    """One method trained with one seed, and evaluated.

    Attributes:
        label, method: the name in the table, and in the registry (or `tt`).
        seed: of the training.
        dataset: Minari id, or several that are trained on as one.
        output: the comparison's folder.
        settings: what differs from the method's preset, `planner` and `planner.` settings among them.
        evaluation: how it is evaluated.
    """

    label: str
    method: str
    seed: int
    dataset: str | tuple[str, ...]
    output: Path
    settings: Mapping[str, Any] = field(hash=False)
    evaluation: EvaluationConfig

    @property
    def dataset_ids(self) -> tuple[str, ...]:
        """The Minari id or ids."""
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

    @property
    def name(self) -> str:
        """`iql/0`: label and seed."""
        return f"{self.label}/{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the cell's files are."""
        return self.output / self.label / f"seed-{self.seed}"

    @property
    def model(self) -> Path:
        """The checkpoint folder, which `trajplan.load` reads."""
        return self.folder / "model"

    @property
    def evaluated(self) -> Path:
        """The numbers of its evaluation."""
        return self.model / "evaluation.json"

    @property
    def log(self) -> Path:
        """What training and evaluation print in a comparison; a cell's own command prints to the terminal instead."""
        return self.folder / "log.txt"

    def command(self, device: str | None = None) -> list[str]:
        """The words of the one command that trains and evaluates the cell, or resumes it, on any machine."""
        words = ["trajplan", "compare", "--dataset", *self.dataset_ids]
        words += ["--methods", self.label if self.label == self.method else f"{self.label}={self.method}"]
        words += ["--cell", self.name, *changed_flags(self.evaluation)]
        words += ["--device", device] if device else []
        words += ["--output", str(self.output.absolute())]
        return words + (["--set", *set_words(self.label, self.settings)] if self.settings else [])

    def training_identity(self) -> dict[str, Any]:
        """What makes its training another one when it changes, JSON-able."""
        training, *_ = split_planner(self.settings)
        return {"dataset": " + ".join(self.dataset_ids), "method": self.method, "seed": self.seed, "settings": training}

    def evaluation_identity(self) -> dict[str, Any]:
        """What makes its evaluation another one when it changes, JSON-able."""
        _, name, planner = split_planner(self.settings)
        how = to_dict(self.evaluation)
        del how["num_envs"]
        # Records from before there was another planner name none.
        return how | {"planner": planner if name in (None, DEFAULT) else {"type": name} | planner}


def read_record(cell: Cell) -> dict[str, Any]:
    """What is known of a cell: `training` and `evaluation` (identities), `cost` (once trained), `finished`."""
    path = cell.folder / RECORD
    fresh: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "training": cell.training_identity(),
        "evaluation": None,
        "cost": None,
        "finished": False,
    }
    if not path.exists():
        return fresh
    try:
        record = read_json(path)
        if record.keys() != fresh.keys() or record["schema_version"] != SCHEMA_VERSION:
            raise ConfigError(f"{path} was written by another version of trajplan; choose another --output.")
        if not _has_form(record):
            raise CheckpointError(f"{path} is damaged.")
    except CheckpointError as error:
        raise CheckpointError(
            f"{str(error).rstrip('.')}; delete it, and the cell resumes from its newest checkpoint."
        ) from None
    record["training"]["settings"] = todays_names(cell.method, record["training"]["settings"])
    differences = _differences(fresh["training"], record["training"])
    if differences:
        raise ConfigError(
            f"{cell.folder} was trained otherwise: {'; '.join(differences)}; give the same settings, another label "
            "(--methods LABEL=METHOD) or another --output."
        )
    return record


def write_record(cell: Cell, record: Mapping[str, Any]) -> None:
    """Keep what is known of a cell."""
    write_json(cell.folder / RECORD, record)


def is_finished(cell: Cell, record: Mapping[str, Any]) -> bool:
    """Whether a cell is trained, and evaluated as asked, in as many episodes or more, and its files are whole."""
    try:
        read_finished(cell, record)
    except CheckpointError:
        return False
    return True


def unfinished(cell: Cell) -> str | None:
    """Why a cell is not finished, damaged files among the reasons, or None if it is."""
    try:
        read_finished(cell, read_record(cell))
    except CheckpointError as error:
        return str(error)
    return None


def continues_evaluation(cell: Cell, record: Mapping[str, Any]) -> bool:
    """Whether the episodes of the evaluation before are as asked, fewer or more or otherwise scaled perhaps."""
    before, now = record["evaluation"], cell.evaluation_identity()
    free = dict.fromkeys(("episodes", "reference_min", "reference_max"))
    return before is not None and before | free == now | free


def read_finished(cell: Cell, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """What a finished cell's evaluation.json holds, and what `read_training` gives; refuses an unfinished one."""
    if not _is_recorded_as_finished(cell, record):
        raise CheckpointError("not begun, or not finished")
    settings, metrics = read_training(cell)
    evaluation = read_evaluation(cell)
    found, asked = len(evaluation["episodes"]), cell.evaluation.episodes * tasks_in(evaluation)
    if found != asked:
        raise CheckpointError(f"{cell.evaluated} holds {found} of {asked} episodes.")
    if not _is_scaled_as_asked(cell, evaluation["reference"]):
        raise CheckpointError("evaluated, but not scaled by the reference scores asked for")
    return evaluation, settings, metrics


def read_evaluation(cell: Cell) -> dict[str, Any]:
    """evaluation.json, with those of the episodes asked for that it has."""
    evaluation = read_json(cell.evaluated)
    try:
        entries = {entry["episode"]: entry for entry in evaluation["episodes"]}
        for entry in entries.values():
            float(entry["return"]), int(entry["length"]), entry["seed"], entry["success"]
        parts = [evaluation[name] for name in ("reference", "planner", "environment", "timing")]
        if not all(part is None or isinstance(part, dict) for part in parts):
            raise TypeError
        reference, *_, timing = parts
        if reference is not None:
            ReferenceScores(**reference)
        if timing is not None:
            float(timing["steps_per_second"])
    except (DataError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{cell.evaluated} is damaged.") from None
    asked = cell.evaluation.episodes * tasks_in(evaluation)
    return evaluation | {"episodes": [entries[n] for n in range(asked) if n in entries]}


def tasks_in(evaluation: Mapping[str, Any]) -> int:
    """How many tasks an evaluation's episodes are spread over, so many of each as were asked for; 1 without tasks."""
    return len(evaluation.get("tasks") or (1,))


def read_training(cell: Cell) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The resolved settings of a trained cell, of method and run, and the lines of its metrics.jsonl."""
    try:
        if not (cell.model / WEIGHTS).exists():
            raise CheckpointError(f"{cell.model} has no {WEIGHTS}.")
        config, run = read_json(cell.model / "config.json"), read_json(cell.model / "training.json")
        settings = todays_names(cell.method, config.get("settings", {}) | run)
        lines = read_metrics(cell.model)
    except (CheckpointError, TypeError, ValueError) as error:
        raise damaged_model(cell, error) from None
    return settings, lines


def damaged_model(cell: Cell, error: Exception) -> CheckpointError:
    """What to say of a cell whose training is over and whose model cannot be read."""
    reason = str(error).rstrip(".")
    return CheckpointError(f"{cell.name} was trained, but {reason}; delete {cell.folder} to train it again.")


def _is_recorded_as_finished(cell: Cell, record: Mapping[str, Any]) -> bool:
    if not continues_evaluation(cell, record):
        return False
    more = record["evaluation"]["episodes"] - cell.evaluation.episodes
    # An interrupted evaluation of more episodes may be past those asked for; with fewer it would drop the others.
    return more >= 0 if record["finished"] else more > 0


def _is_scaled_as_asked(cell: Cell, reference: Mapping[str, Any] | None) -> bool:
    asked = (cell.evaluation.reference_min, cell.evaluation.reference_max)
    if asked == (None, None):
        return reference is None or reference["source"] != GIVEN
    return reference is not None and (reference["min"], reference["max"]) == asked


def _has_form(record: Mapping[str, Any]) -> bool:
    training, evaluation, cost = record["training"], record["evaluation"], record["cost"]
    if not (isinstance(training, dict) and isinstance(training.get("settings"), dict)):
        return False
    if evaluation is not None and not (isinstance(evaluation, dict) and isinstance(evaluation.get("episodes"), int)):
        return False
    return cost is None or (isinstance(cost, dict) and cost.keys() >= set(COST))


def _differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    flat_now, flat_before = ({**values, **values["settings"]} for values in (now, before))
    names = [name for name in flat_now | flat_before if name != "settings"]
    preset = "the preset's"
    pairs = [(name, flat_now.get(name, preset), flat_before.get(name, preset)) for name in names]
    return [f"{name} is {new} and was {old}" for name, new, old in pairs if new != old]
