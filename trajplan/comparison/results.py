"""What the cells of a comparison came to, read from their folders; comparison.csv."""

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trajplan.comparison.cells import Cell, read_finished, read_record
from trajplan.data.scores import ReferenceScores
from trajplan.errors import CheckpointError
from trajplan.files import read_json, replacing, writing
from trajplan.planners.registry import typed
from trajplan.runs.metrics import NAME as METRICS
from trajplan.runs.metrics import read_metrics

MIB = 2**20
# Of a metrics.jsonl that is being written, what is read: many times a line.
TAIL_BYTES = 2**16


@dataclass(frozen=True)
class Result:
    """A finished cell.

    Attributes:
        cell: the cell.
        returns: (E,) float64, undiscounted, in order of episodes.
        lengths: (E,) steps.
        evaluation: evaluation.json with the episodes asked for; its summary may be of more.
        cost: of training and evaluation (seconds, updates, peak memory in bytes), as in cell.json.
        metrics: lines of metrics.jsonl.
        settings: resolved ones, of method and run.
    """

    cell: Cell
    returns: np.ndarray
    lengths: np.ndarray
    evaluation: dict[str, Any]
    cost: dict[str, Any]
    metrics: list[dict[str, Any]]
    settings: dict[str, Any]

    @property
    def planner(self) -> str | None:
        """The planner's name; None: the method does not plan."""
        planner = self.evaluation["planner"]
        return None if planner is None else typed(planner)["type"]

    @property
    def reference(self) -> ReferenceScores | None:
        """The returns that mean 0 and 100."""
        values = self.evaluation["reference"]
        return None if values is None else ReferenceScores(**values)

    @property
    def scores(self) -> np.ndarray:
        """(E,) normalised scores x100, or the returns where there are no reference scores."""
        return self.returns if self.reference is None else self.reference.normalize(self.returns)

    @property
    def seeds_together(self) -> int:
        """How many seeds one process trained at once, whose time the cost is; records of earlier versions name none."""
        return self.cost.get("together", 1)

    @property
    def evaluation_seconds(self) -> float | None:
        """How long all episodes take at the measured speed; None where only finished ones were taken over."""
        timing = self.evaluation["timing"]
        return None if timing is None else float(self.lengths.sum()) / timing["steps_per_second"]

    @property
    def learning_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Updates (T,), and the mean score (or return) at each, of evaluations during the training; T may be 0."""
        points = [line for line in self.metrics if "evaluation/return" in line]
        returns = np.array([line["evaluation/return"] for line in points], np.float64)
        scores = returns if self.reference is None else self.reference.normalize(returns)
        return np.array([line["update"] for line in points], np.int64), scores

    @property
    def held_out_loss(self) -> tuple[np.ndarray, np.ndarray]:
        """Updates (T,), and the held-out loss of a Trajectory Transformer at each, nats per token; T may be 0."""
        points = [line for line in self.metrics if "held_out/loss" in line]
        updates = np.array([line["update"] for line in points], np.int64)
        return updates, np.array([line["held_out/loss"] for line in points], np.float64)


@dataclass(frozen=True)
class Method:
    """The finished runs of one method, in order of their seeds."""

    label: str
    results: list[Result]

    @property
    def scores(self) -> np.ndarray:
        """(R, E) scores of R runs in the same E episodes."""
        return np.stack([result.scores for result in self.results])

    @property
    def run_scores(self) -> np.ndarray:
        """(R,) scores of R runs, each the mean over its episodes: what statistics of the method are made of."""
        return self.scores.mean(1)

    @property
    def returns(self) -> np.ndarray:
        """(R, E) returns."""
        return np.stack([result.returns for result in self.results])


def by_method(results: Iterable[Result]) -> list[Method]:
    """Results by method, the best mean score first."""
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(result.cell.label, []).append(result)
    return sorted((Method(*item) for item in runs.items()), key=lambda method: -method.run_scores.mean())


def training_cost(cell: Cell) -> dict[str, Any]:
    """Updates, seconds (over all sessions, evaluations on the way included) and updates a second of a training."""
    lines = read_metrics(cell.model)
    last = lines[-1]
    speeds = [line["updates_per_second"] for line in lines if "updates_per_second" in line]
    speed = float(np.median(speeds)) if speeds else last["update"] / max(1e-9, last["seconds"])
    return {"updates": last["update"], "training_seconds": last["seconds"], "updates_per_second": speed}


def progress(cell: Cell) -> str:
    """How far a cell that is being worked on has come, in a few words."""
    try:
        evaluation = read_json(cell.evaluated)
        if read_record(cell)["evaluation"] is not None:
            return f"evaluating {len(evaluation['episodes'])}/{evaluation['num_episodes']}"
    except (CheckpointError, LookupError, TypeError):
        pass
    try:
        updates = read_json(cell.model / "training.json").get("updates")
        # How long an ensemble's training takes is not known before.
        return f"{_last_update(cell):,} updates" if updates is None else f"{_last_update(cell) / updates:.0%}"
    except (CheckpointError, LookupError, OSError, TypeError, ValueError):
        return "starting"


def _last_update(cell: Cell) -> int:
    """The update of the last whole line of metrics.jsonl, from the file's end alone: it may be long."""
    with (cell.model / METRICS).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().split(b"\n")
    # After the last line's end nothing comes, or a line that is just being written.
    return json.loads(lines[-2])["update"]


def load_results(cells: Sequence[Cell]) -> list[Result]:
    """The finished ones among the cells, in their order; those with damaged files are not."""
    results = []
    for cell in cells:
        with contextlib.suppress(CheckpointError):
            results.append(_load(cell))
    return results


def _load(cell: Cell) -> Result:
    record = read_record(cell)
    evaluation, settings, metrics = read_finished(cell, record)
    returns = np.array([episode["return"] for episode in evaluation["episodes"]], np.float64)
    lengths = np.array([episode["length"] for episode in evaluation["episodes"]], np.int64)
    planner = {} if evaluation["planner"] is None else typed(evaluation["planner"])
    settings |= {f"planner.{name}": value for name, value in planner.items()}
    return Result(cell, returns, lengths, evaluation, record["cost"], metrics, settings)


def row(result: Result) -> dict[str, Any]:
    """A cell's line of comparison.csv."""
    successes = [episode["success"] for episode in result.evaluation["episodes"]]
    known = [success for success in successes if success is not None]
    cost, gpu = result.cost, result.cost["gpu_memory_bytes"]
    return {
        "label": result.cell.label,
        "method": result.cell.method,
        "seed": result.cell.seed,
        "mean_return": float(result.returns.mean()),
        "normalized_score": None if result.reference is None else float(result.scores.mean()),
        "episodes": len(result.returns),
        "mean_length": float(result.lengths.mean()),
        "success_rate": float(np.mean(known)) if known else None,
        "updates": cost["updates"],
        "training_seconds": cost["training_seconds"],
        "updates_per_second": cost["updates_per_second"],
        "evaluation_seconds": result.evaluation_seconds,
        "peak_memory_mib": round(cost["peak_memory_bytes"] / MIB, 1),
        "gpu_memory_mib": None if gpu is None else round(gpu / MIB, 1),
        "device": cost["device"],
        "seeds_together": result.seeds_together,
        "folder": result.cell.folder.relative_to(result.cell.output).as_posix(),
    }


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write comparison.csv, a line a cell, replaced as a whole."""
    rows = [row(result) for result in results]
    with writing(path), replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def settings_text(result: Result) -> str:
    """The resolved settings as JSON for people."""
    return json.dumps(result.settings, indent=2)
