"""`trajplan.train`: pretrain a Trajectory Transformer on a dataset, with the defaults of the command."""

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState

from trajplan.card import write_card
from trajplan.config import from_dict, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import CheckpointError, ConfigError
from trajplan.planners.settings import check_window, save_planner, saved_planner
from trajplan.presets import preset_for, preset_named
from trajplan.runs.folder import open_dataset, resumes
from trajplan.runs.result import TrainResult
from trajplan.training.config import TrainConfig
from trajplan.training.loop import train as pretrain
from trajplan.training.loop import uses_gpu
from trajplan.training.resume import saved_config

# What a launcher tells each of the processes that it starts.
PLACES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def train(
    dataset: OfflineDataset | str | Sequence[str] | None,
    output: str | Path,
    preset: str | None = None,
    *,
    context: int | None = None,
    resume: bool = False,
    device: str | None = None,
    **settings: Any,
) -> TrainResult:
    """Train as `trajplan train` does, with the same defaults, into a folder that `trajplan.load` reads.

    `trajplan.train(dataset, "runs/maze", updates=2000)` is `trajplan train --output runs/maze --updates 2000` on it.

    Args:
        dataset: a dataset, or the Minari id of one, or of several that train as one. None: that of the run to resume.
        output: the run's folder; made if it is not there.
        preset: name of the settings to start from. None: chosen by size, device, environment and kind of data; of a run
            that is resumed, its own.
        context: past transitions that the planner is conditioned on. None: the preset's.
        resume: resume the run in `output` from its newest complete checkpoint, exactly.
        device: where it trains, such as "cpu" or "cuda". None: a GPU if there is one.
        settings: of `TrainConfig`, over the preset's.

    Raises:
        CheckpointError: if `output` holds a run and `resume` is not set, or cannot be resumed or written.
        ConfigError: for an unknown preset, setting or device, a value out of range, or a launcher that has started one
            process where several were asked for.
        DataError: for a dataset that is not there or cannot be used.
        TrajplanError: if a loss is not finite.
    """
    check_launcher()
    folder, gpu = Path(output), uses_gpu(device)
    resumed = resumes(folder, resume)
    # What accelerate remembers of this run must not bind the next one in a process of one's own.
    fresh = not PartialState._shared_state
    try:
        process = PartialState(cpu=not gpu)
        # One process fills the dataset's cache, the others open it.
        with process.main_process_first():
            data = open_dataset(dataset, folder, resumed)
        if resumed:
            config, planner, say = _resumed(data, folder, preset, context, settings, gpu)
        else:
            config, planner, say = settings_for(data, preset, gpu=gpu, context=context, **settings)
        if process.is_main_process:
            print(say)
            if resume and not resumed:
                print(f"{folder} holds no run yet: starting from the beginning.")
        begun = partial(save_planner, config=planner)
        result = pretrain(data, folder, config, resume=resume, device=device, begun=begun)
        if process.is_main_process and not result.interrupted:
            write_card(folder)
        return result
    finally:
        if fresh and not torch.distributed.is_initialized():
            AcceleratorState._reset_state(reset_partial_state=True)


def settings_for(
    data: OfflineDataset, preset: str | None, *, gpu: bool, context: int | None = None, **settings: Any
) -> tuple[TrainConfig, Any, str]:
    """The settings of a new run, of its planner, and a sentence about them.

    Args:
        data: what to learn.
        preset, context, settings: as `train` takes them.
        gpu: whether it trains on one, which the choice of a preset goes by.
    """
    automatic = preset in (None, "auto")
    chosen = preset_for(data.info, gpu=gpu) if automatic else preset_named(preset or "auto", data.num_transitions)
    config = from_dict(TrainConfig, to_dict(chosen.train) | settings)
    planner = chosen.planner
    if "discount" in (field.name for field in fields(planner)):
        planner = replace(planner, discount=config.discount)
    if context is not None:
        planner = replace(planner, context=context)
    check_window(planner, config.window)
    say = f"Preset {chosen.name}{f' ({chosen.why})' if automatic else ''} on {data.id}."
    return config, planner, f"{say}\n{chosen.note}" if chosen.note else say


def _resumed(
    data: OfflineDataset, run: Path, preset: str | None, context: int | None, settings: dict[str, Any], gpu: bool
) -> tuple[TrainConfig, Any, str]:
    """The settings of a run that is resumed, which keeps its planner."""
    saved, planner = saved_config(run), saved_planner(run)
    if preset is None:
        config = from_dict(TrainConfig, to_dict(saved) | settings)
    else:
        config, *_ = settings_for(data, preset, gpu=gpu, context=planner.context, **settings)
    if context not in (None, planner.context):
        raise CheckpointError(
            f"{run} is a run whose planner has context {planner.context}, which --resume keeps: leave --context "
            f"out, and give trajplan evaluate --context {context} to plan with another."
        )
    return config, planner, f"Resuming {run}, on {data.id}."


def check_launcher() -> None:
    """Refuse the one process that `accelerate launch` starts where several were asked for, and no GPUs are there."""
    # Of these its launcher sets the first always, the second only where more than one process was asked for.
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if launched and not any(name in os.environ for name in PLACES):
        raise ConfigError(
            "accelerate launch was asked for several processes and has started one, as it does without several GPUs; "
            "on a CPU type ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 -m trajplan train ..., or leave the "
            "launcher out for one process."
        )
