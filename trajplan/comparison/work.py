"""The work on one cell: train what is not trained yet, evaluate, and keep a record of how far it is.

All of it resumes: what a cell needs to know is in its folder, so that the same call again, after an interruption or a
kill, on this machine or another, resumes, and does nothing where nothing is missing.
"""

import fcntl
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajplan.comparison.cells import (
    Cell,
    continues_evaluation,
    is_finished,
    read_evaluation,
    read_record,
    tasks_in,
    write_record,
)
from trajplan.comparison.memory import peak_gpu_memory, peak_memory
from trajplan.comparison.results import training_cost
from trajplan.comparison.settings import DYNAMICS, PLANNED_BY, TRANSFORMER, split_planner
from trajplan.config import to_dict
from trajplan.errors import CheckpointError, TrajplanError
from trajplan.files import make_folder, read_json

if TYPE_CHECKING:
    from trajplan.runs.result import TrainResult


def run_cell(cell: Cell, device: str | None = None) -> bool:
    """Train and evaluate a cell, or resume where an earlier process stopped.

    Ctrl-C and SIGTERM save, and end it. Under a launcher of several processes all of them train a Trajectory
    Transformer together; everything else is the first one's.

    Args:
        cell: the cell.
        device: `cpu`, `cuda` or None for a GPU if there is one.

    Returns:
        Whether it is done; False: it was interrupted.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        if cell.method != TRANSFORMER or read_record(cell)["cost"] is not None:
            return True
        _check_device(cell, device)
        return not _train(cell, device).interrupted
    with terminated_as_interrupted(), alone(cell.folder):
        return _run(cell, device)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within it SIGTERM leaves as Ctrl-C does: through every `finally`."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second process of this machine from the cell; the system frees it when this one ends, however it does."""
    make_folder(folder)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrajplanError(f"Another process works on {folder}; start each cell once.") from None
        yield


def _run(cell: Cell, device: str | None) -> bool:
    record = read_record(cell)
    if is_finished(cell, record):
        print(f"{cell.name} is finished: {cell.folder}")
        return True
    _check_device(cell, device)
    write_record(cell, record)
    # Checked again here, as a cell may run on another machine; imported here, as a finished cell needs no torch.
    from trajplan.comparison.checks import check_cell, check_model

    if record["cost"] is None:
        check_cell(cell, device)
        result = _train(cell, device)
        if result.interrupted:
            return _interrupted(f"{cell.name} stopped after {result.updates} updates, saved")
        write_cost(cell, record)
    else:
        check_model(cell)
    _set_aside(cell, record)
    cell = _with_episodes_there(cell)
    record |= {"evaluation": cell.evaluation_identity(), "finished": False}
    write_record(cell, record)
    if not _evaluate(cell, device):
        return False
    write_record(cell, record | {"finished": True})
    return True


def _train(cell: Cell, device: str | None) -> "TrainResult":
    training, *_ = split_planner(cell.settings)
    if cell.method == TRANSFORMER:
        from trajplan.pretraining import train

        preset = training.pop("preset", None)
        return train(cell.dataset_ids, cell.model, preset, resume=True, device=device, seed=cell.seed, **training)
    how: dict[str, Any] = {"resume": True, "device": device, "seed": cell.seed}
    if cell.method == DYNAMICS:
        from trajplan.dynamics_training import dynamics

        return dynamics(cell.dataset_ids, cell.model, **how, **training)
    from trajplan.baseline_training import baseline

    return baseline(cell.method, cell.dataset_ids, cell.model, **how, **training)


def _evaluate(cell: Cell, device: str | None) -> bool:
    from trajplan.evaluating import EvaluationInterrupted, evaluate
    from trajplan.planners.settings import planner_config, saved_planner

    planner = None
    if cell.method in PLANNED_BY:
        _, name, settings = split_planner(cell.settings)
        planner = planner_config(name, saved_planner(cell.model), settings)
    how = to_dict(cell.evaluation)
    how["seed"] = how.pop("episode_seed")
    try:
        evaluation = evaluate(cell.model, output=cell.model, resume=True, device=device, planner=planner, **how)
    except EvaluationInterrupted as interrupt:
        return _interrupted(f"{cell.name}: {interrupt}")
    print(f"{evaluation}\n{evaluation.path}")
    return True


def _interrupted(how_far: str) -> bool:
    print(f"trajplan: interrupted; {how_far}: the same command resumes.", file=sys.stderr)
    return False


def _check_device(cell: Cell, device: str | None) -> None:
    from trajplan.comparison.checks import check_device

    check_device(cell.method, device)


def _set_aside(cell: Cell, record: Mapping[str, Any]) -> None:
    """Rename an evaluation.json that cannot be resumed: what it holds may still be of use to a person."""
    from trajplan.evaluation.report import evaluation_versions

    if not cell.evaluated.exists():
        return
    try:
        versions = read_evaluation(cell).get("versions")
    except CheckpointError:
        _rename(cell.evaluated, "damaged", "is damaged")
        return
    if not continues_evaluation(cell, record):
        _rename(cell.evaluated, "before", "was evaluated with other settings")
    elif versions != evaluation_versions():
        # An evaluation refuses to mix episodes of two versions, which may differ.
        _rename(cell.evaluated, "before", "was evaluated with other versions of packages")


def _rename(path: Path, name: str, why: str) -> None:
    aside = _free(path.with_name(f"evaluation.{name}.json"))
    os.replace(path, aside)
    print(f"{path} {why}: it is kept as {aside.name}, and the model evaluated anew.")


def _free(path: Path) -> Path:
    """The path, or the first of NAME-2, NAME-3, ... that is free if there is something."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(free for free in chain([path], numbered) if not free.exists())


def _with_episodes_there(cell: Cell) -> Cell:
    """The cell with no fewer episodes than its evaluation.json has, which would be lost."""
    if not cell.evaluated.exists():
        return cell
    evaluation = read_json(cell.evaluated)
    there = max((entry["episode"] + 1 for entry in evaluation["episodes"]), default=0)
    of_each = math.ceil(there / tasks_in(evaluation))
    return replace(cell, evaluation=replace(cell.evaluation, episodes=max(of_each, cell.evaluation.episodes)))


def write_cost(cell: Cell, record: dict[str, Any], together: int = 1) -> None:
    """Record what the training took that this process ended, of so many seeds together."""
    record["cost"] = training_cost(cell) | _taken() | {"together": together}
    write_record(cell, record)


def _taken() -> dict[str, Any]:
    import torch

    gpu = peak_gpu_memory()
    name = "CPU" if gpu is None else torch.cuda.get_device_name()
    return {"peak_memory_bytes": peak_memory(), "gpu_memory_bytes": gpu, "device": name}
