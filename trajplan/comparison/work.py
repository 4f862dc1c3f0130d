"""The work on one cell: train what is not trained yet, evaluate, and keep a record of how far it is."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from trajplan.comparison.cells import (
    Cell,
    continues_evaluation,
    is_finished,
    read_evaluation,
    read_record,
    write_record,
)
from trajplan.comparison.claim import Claim
from trajplan.comparison.memory import peak_gpu_memory, peak_memory
from trajplan.comparison.results import training_cost
from trajplan.comparison.settings import TRANSFORMER
from trajplan.errors import CheckpointError, ConfigError
from trajplan.files import read_json

Run = Callable[[list[str]], int]


def work(cell: Cell, run: Run, device: str | None = None) -> int:
    """Train and evaluate a cell, or go on where an earlier process stopped.

    Under a launcher of several processes all of them train a Trajectory Transformer together; everything else is the
    first one's.

    Args:
        cell: the cell.
        run: runs a `trajplan` command line, and gives its exit status.
        device: `cpu`, `cuda` or None for a GPU if there is one.

    Returns:
        0, or the exit status of the command that did not succeed.

    Raises:
        ClaimedError: if another process works on the cell.
        CheckpointError: if the cell was trained, and its model or its cell.json is missing or damaged.
        ConfigError: if the cell's folder holds a training with other settings, one of its environments is missing, or
            as `check_device` says.
    """
    if device == "cpu":
        # For the Trajectory Transformer, whose command takes no device.
        os.environ["ACCELERATE_USE_CPU"] = "1"
    if int(os.environ.get("RANK", "0")) > 0:
        if cell.method != TRANSFORMER or read_record(cell)["cost"] is not None:
            return 0
        check_device(cell, device)
        return run(cell.training_command(device))
    # SIGTERM leaves as Ctrl-C does: through every `finally`, the claim's among them.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Claim(cell.claim):
            return _work(cell, run, device)
    finally:
        signal.signal(signal.SIGTERM, before)


def check_device(cell: Cell, device: str | None) -> None:
    """Refuse a device that a cell would not be worked on; takes no memory of it.

    Raises:
        ConfigError: if there is no such device here, or accelerate is told to leave it alone.
    """
    # Imported here, as it takes torch, and a finished cell does not.
    from trajplan import devices

    devices.check_device(device)
    if device != "cuda" or cell.method != TRANSFORMER:
        return
    # Here, as a baseline needs neither accelerate nor transformers.
    from trajplan.training.loop import uses_gpu

    # The command that trains it takes no device, but what accelerate finds.
    if not uses_gpu():
        raise ConfigError(
            "ACCELERATE_USE_CPU keeps the Trajectory Transformer from the GPU that --device cuda asks for; unset it, "
            "or give --device cpu."
        )


def _work(cell: Cell, run: Run, device: str | None) -> int:
    record = read_record(cell)
    if is_finished(cell, record):
        print(f"{cell.name} is finished: {cell.folder}")
        return 0
    check_device(cell, device)
    write_record(cell, record)
    if record["cost"] is None:
        _check(cell)
        status = run(cell.training_command(device))
        if status:
            return status
        record["cost"] = training_cost(cell) | _taken()
        write_record(cell, record)
    else:
        _check_model(cell)
    _set_aside(cell, record)
    cell = _with_episodes_there(cell)
    record |= {"evaluation": cell.evaluation_identity(), "finished": False}
    write_record(cell, record)
    status = run(cell.evaluation_command(device))
    if status:
        return status
    write_record(cell, record | {"finished": True})
    return 0


def _check(cell: Cell) -> None:
    # Again here, as a cell may run on another machine; imported here, as it takes torch, and a finished cell does not.
    from trajplan.comparison.checks import check_cell

    check_cell(cell)


def _check_model(cell: Cell) -> None:
    from trajplan.comparison.checks import check_model

    check_model(cell)


def _set_aside(cell: Cell, record: Mapping[str, Any]) -> None:
    """Rename an evaluation.json that cannot be gone on with: what it holds may still be of use to a person."""
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
        # `trajplan evaluate --resume` refuses to mix episodes of two versions, which may differ.
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
    there = max((entry["episode"] + 1 for entry in read_json(cell.evaluated)["episodes"]), default=0)
    return replace(cell, evaluation=replace(cell.evaluation, episodes=max(there, cell.evaluation.episodes)))


def _taken() -> dict[str, Any]:
    import torch

    gpu = peak_gpu_memory()
    name = "CPU" if gpu is None else torch.cuda.get_device_name()
    return {"peak_memory_bytes": peak_memory(), "gpu_memory_bytes": gpu, "device": name}
