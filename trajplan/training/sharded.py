"""What a run of several processes, its model sharded over them or not, writes to resume from, and how it is read."""

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
from trajplan.runs import state
from trajplan.runs.tensors import read_tensors


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """The whole model's state on the CPU, also of a wrapped or sharded model; a collective call.

    With several processes, the main one alone gets it; the others get nothing.
    """
    weights: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return weights


def full_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `PARAMETER/NAME` tensors on the CPU, to be read as `full_weights`."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    moments: Any = get_optimizer_state_dict(model, optimizer, options=options).get("state", {})
    return {f"{parameter}/{name}": value for parameter, part in moments.items() for name, value in part.items()}


def all_random_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """The states of every process's random generators, `RANK/cpu` and on a GPU `RANK/device`; a collective call."""
    every: dict[str, Tensor] = {}
    for name, mine in state.random_states(accelerator.device).items():
        gathered = accelerator.gather(mine[None].to(accelerator.device)).cpu()
        every |= {f"{rank}/{name}": row.clone() for rank, row in enumerate(gathered)}
    return every


def restore(step: Path, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    """Put weights, optimiser and this process's random states back as they were; a collective call."""
    weights, moments, random = (read_tensors(step / name) for name in state.FILES)
    options = StateDictOptions(full_state_dict=True)
    try:
        set_model_state_dict(model, dict(weights), options=options)
        current: Any = get_optimizer_state_dict(model, optimizer, options=options)
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in moments.items():
            parameter, _, name = key.rpartition("/")
            parts.setdefault(parameter, {})[name] = value
        set_optimizer_state_dict(model, optimizer, current | {"state": parts}, options=options)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{step} does not fit the model: {str(error).splitlines()[0]}") from None
    rank = f"{accelerator.process_index}/"
    mine = {key.removeprefix(rank): value for key, value in random.items() if key.startswith(rank)}
    state.restore_random_states(step, mine, accelerator.device)
