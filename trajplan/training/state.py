"""What an exact resume needs: weights, optimiser moments, random states and the update, never a pickle."""

import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from trajplan.errors import CheckpointError
from trajplan.files import PARTIAL, publish, read_json, remove_partial, write_json, writing
from trajplan.runs.tensors import read_tensors, write_tensors

KEPT = 2
FILES = ("model.safetensors", "optimizer.safetensors", "random.safetensors")
# There only where the kept weights are of an earlier update than the checkpoint.
KEPT_WEIGHTS = "kept.safetensors"


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """The whole model's state on the CPU, also of a wrapped or sharded model; a collective call.

    With several processes, the main one alone gets it; the others get nothing.
    """
    weights: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return weights


def full_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `PARAMETER/NAME` tensors on the CPU, to be read as `full_weights`."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: Any = get_optimizer_state_dict(model, optimizer, options=options).get("state", {})
    return {f"{parameter}/{name}": value for parameter, part in state.items() for name, value in part.items()}


def random_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """The states of every process's random generators, `RANK/cpu` and on a GPU `RANK/device`; a collective call."""
    mine = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        mine["device"] = torch.cuda.get_rng_state(accelerator.device)
    every: dict[str, Tensor] = {}
    for name, state in mine.items():
        gathered = accelerator.gather(state[None].to(accelerator.device)).cpu()
        every |= {f"{rank}/{name}": row.clone() for rank, row in enumerate(gathered)}
    return every


def save_state(
    folder: Path,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
    random: dict[str, Tensor],
    about: dict[str, Any],
    kept: dict[str, Tensor] | None = None,
) -> Path:
    """Write `folder/step-XXXXXXXX` and delete all but the newest `KEPT`; for the main process.

    Args:
        folder: the run's `training_state`.
        weights, moments, random: see the functions above.
        about: JSON-able, with `update`, the number of updates done.
        kept: the weights that the model folder is to hold, where these are not `weights`.

    Raises:
        CheckpointError: if it cannot be written.
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
    """The weights of a checkpoint that the model folder is to hold.

    Raises:
        CheckpointError: if the file is damaged.
    """
    kept = step / KEPT_WEIGHTS
    return read_tensors(kept if kept.exists() else step / FILES[0])


def newest_state(folder: Path) -> Path | None:
    """The newest whole checkpoint below a run's `training_state`, or None."""
    return next((step for step in sorted(folder.glob("step-*"), reverse=True) if _is_whole(step)), None)


def clean(folder: Path) -> None:
    """Delete half-written checkpoints; for the main process."""
    remove_partial(folder)
    for step in folder.glob("step-*"):
        if not _is_whole(step):
            shutil.rmtree(step)


def restore(step: Path, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    """Put weights, optimiser and this process's random states back as they were; a collective call.

    Raises:
        CheckpointError: if the files do not fit the model or the processes, or are of another kind of device.
    """
    weights, moments, random = (read_tensors(step / name) for name in FILES)
    mine = _random_states_of(step, random, accelerator)
    options = StateDictOptions(full_state_dict=True)
    try:
        set_model_state_dict(model, dict(weights), options=options)
        current: Any = get_optimizer_state_dict(model, optimizer, options=options)
        state: dict[str, dict[str, Tensor]] = {}
        for key, value in moments.items():
            parameter, _, name = key.rpartition("/")
            state.setdefault(parameter, {})[name] = value
        set_optimizer_state_dict(model, optimizer, current | {"state": state}, options=options)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{step} does not fit the model: {str(error).splitlines()[0]}") from None
    torch.set_rng_state(mine["cpu"])
    if "device" in mine:
        torch.cuda.set_rng_state(mine["device"], accelerator.device)


def _random_states_of(step: Path, random: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """This process's own among the random states of `step`; another kind of device would draw other numbers."""
    rank = accelerator.process_index
    mine = {name: random[f"{rank}/{name}"] for name in ("cpu", "device") if f"{rank}/{name}" in random}
    if mine.keys() != ({"cpu", "device"} if accelerator.device.type == "cuda" else {"cpu"}):
        raise CheckpointError(
            f"{step} was written on another kind of device: it has random states of {', '.join(mine)} and this run is "
            f"on {accelerator.device.type}; an exact continuation needs the same kind."
        )
    return mine


def _is_whole(step: Path) -> bool:
    try:
        sizes = read_json(step / "state.json")["sizes"]
        return sizes.keys() >= set(FILES) and all((step / name).stat().st_size == sizes[name] for name in sizes)
    except (AttributeError, CheckpointError, KeyError, TypeError, OSError):
        return False
