"""What an exact resume needs, as tensors and JSON: weights, optimisers' moments, random states and the update.

A run's `training_state/` holds its newest states, each a folder `step-XXXXXXXX` that appears as a whole. No pickles.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trajplan.errors import CheckpointError
from trajplan.files import PARTIAL, publish, read_json, remove_partial, write_json, writing
from trajplan.runs.tensors import read_tensors, write_tensors

STATES = "training_state"
KEPT = 2
FILES = ("model.safetensors", "optimizer.safetensors", "random.safetensors")
# There only where the weights that the run's folder is to hold are of an earlier update than the state.
KEPT_WEIGHTS = "kept.safetensors"


def save_state(
    folder: Path,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    random: Mapping[str, Tensor],
    about: dict[str, Any],
    kept: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `folder/step-XXXXXXXX` and delete all but the newest `KEPT`; for the main process.

    Args:
        folder: the run's `training_state`.
        weights, moments, random: what the run gives, and takes back from `FILES`.
        about: JSON-able, with `update`, the number of updates done.
        kept: the weights that the run's folder is to hold, where these are not `weights`.
    """
    final = folder / f"step-{about['update']:08d}"
    temporary = folder / (PARTIAL + final.name)
    with writing(final):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        files = dict(zip(FILES, (weights, moments, random), strict=True))
        files |= {} if kept is None else {KEPT_WEIGHTS: kept}
        for name, tensors in files.items():
            write_tensors(temporary / name, tensors)
        sizes = {name: (temporary / name).stat().st_size for name in files}
        write_json(temporary / "state.json", about | {"sizes": sizes})
        publish(temporary, final)
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
    return final


def kept_weights(step: Path) -> dict[str, Tensor]:
    """The weights in a state that the run's folder is to hold."""
    kept = step / KEPT_WEIGHTS
    return read_tensors(kept if kept.exists() else step / FILES[0])


def newest_state(folder: Path) -> Path | None:
    """The newest complete state below a run's `training_state`, or None."""
    return next((step for step in sorted(folder.glob("step-*"), reverse=True) if _is_complete(step)), None)


def clean(run: Path) -> None:
    """Delete what a process that was killed left half-written in a run's folder; for the main process."""
    remove_partial(run)
    remove_partial(run / STATES)
    for step in (run / STATES).glob("step-*"):
        if not _is_complete(step):
            shutil.rmtree(step)


def moments_of(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The states of named optimisers as `NAME/PARAMETER/MOMENT` tensors on the CPU."""
    return {
        f"{name}/{number}/{key}": value.detach().cpu()
        for name, optimizer in optimizers.items()
        for number, part in optimizer.state_dict()["state"].items()
        for key, value in part.items()
    }


def restore_moments(optimizers: Mapping[str, torch.optim.Optimizer], moments: Mapping[str, Tensor]) -> None:
    """Put what `moments_of` gave back; KeyError or ValueError if it does not fit."""
    parts: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in optimizers}
    for key, value in moments.items():
        name, number, moment = key.split("/")
        parts[name].setdefault(int(number), {})[moment] = value
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(optimizer.state_dict() | {"state": parts[name]})


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators that a run on a device draws from: `cpu`, and on a GPU `device`."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"device": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_states(step: Path, states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put what `random_states` gave back, read from `step`; another kind of device would draw other numbers."""
    if states.keys() != random_states(device).keys():
        raise CheckpointError(
            f"{step} was written on another kind of device: it has random states of {', '.join(states)} and this run "
            f"is on {device.type}; resume it on the --device that it was written on, or give another --output."
        )
    set_random_states(states, device)


def set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put what `random_states` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)


def _is_complete(step: Path) -> bool:
    try:
        sizes = read_json(step / "state.json")["sizes"]
        return sizes.keys() >= set(FILES) and all((step / name).stat().st_size == sizes[name] for name in sizes)
    except (AttributeError, CheckpointError, KeyError, TypeError, OSError):
        return False
