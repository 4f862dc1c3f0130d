"""Pretraining of a Trajectory Transformer, on accelerate: one process or several, CPU or GPU, DDP or FSDP.

How processes are started and models sharded is the launcher's business (`accelerate launch … -m trajplan train …`);
the batch size is that of all processes together, and every loss is normalised over the global batch, so their number
changes nothing but the speed.
"""

import math
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from trajplan.config import to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.devices import choose_device, cpu_gains_by_bf16
from trajplan.errors import ConfigError, TrajplanError
from trajplan.models.trajectory_transformer import KINDS, TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.runs import folder as run_folder
from trajplan.runs import state
from trajplan.runs.interrupt import Interrupt
from trajplan.runs.record import Record
from trajplan.runs.result import TrainResult
from trajplan.runs.trackers import start_trackers, tracking
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.tokenizers.tokenizer import Tokenizer
from trajplan.training import checkpoint
from trajplan.training.batches import TokenBatch, TokenTable, TrainingBatches
from trajplan.training.config import TrainConfig
from trajplan.training.estimate import tell_time
from trajplan.training.evaluate_loss import HeldOut
from trajplan.training.goals import goal_settings, window_goals
from trajplan.training.optimizer import learning_rate, make_optimizer
from trajplan.training.preflight import preflight
from trajplan.training.progress import Progress
from trajplan.training.resume import check_same_settings, keep_open_settings
from trajplan.training.run_state import Run, restore, save


def gains_by_bf16(device: str | None = None) -> bool:
    """Whether training goes to a GPU or a processor that gains by computing in bf16; `device` as in `uses_gpu`."""
    if not uses_gpu(device):
        return cpu_gains_by_bf16()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def uses_gpu(device: str | None = None) -> bool:
    """Whether training goes to an accelerator (`ACCELERATE_USE_CPU=1` keeps it on the CPU).

    Args:
        device: the one that was asked for, which becomes the current one; None: an accelerator if there is one.
    """
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if device is None:
        return torch.accelerator.is_available() and not forced
    on = choose_device(device)
    if on.type != "cpu" and forced:
        raise ConfigError(f"ACCELERATE_USE_CPU keeps training from --device {device}; unset it, or give --device cpu.")
    if on.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"Each of several processes takes its own GPU: leave --device {device} out.")
    return on.type != "cpu"


def train(
    dataset: OfflineDataset,
    output: str | Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    device: str | None = None,
    begun: Callable[[Path], object] = lambda folder: None,
) -> TrainResult:
    """Train a Trajectory Transformer and keep `output`, a model folder, up to date.

    `trajplan.train` does this and gives the folder a planner, with which `trajplan.load` acts.

    Args:
        dataset: what to learn.
        output: the folder; made if it is not there.
        config: settings, whose open ones (`updates`, `precision`) are settled here.
        resume: resume the run in `output` from its newest complete state (or from the start, if none was saved),
            exactly: the losses and weights become those of a run that was never stopped.
        device: where it trains, such as "cpu"; None: a GPU if there is one.
        begun: called once, on the main process, when the folder of a new run has been made.
    """
    folder = Path(output)
    resumed = run_folder.resumes(folder, resume)
    training, held_out = preflight(dataset, config)
    windows = int(dataset.lengths[training].sum())
    if resumed:
        config = keep_open_settings(folder, config)
    # A process that has set accelerate up already keeps to the precision that it chose there.
    settled = AcceleratorState().mixed_precision if AcceleratorState._shared_state else None
    bf16 = gains_by_bf16(device) if settled is None else settled == "bf16"
    config = config.resolved(windows=windows, bf16=bf16, cpu=not uses_gpu(device))
    if resumed:
        run_folder.check_same_dataset(folder, dataset.info)
        check_same_settings(folder, config)
    step = run_folder.newest_checkpoint(folder) if resumed else None
    keywords = tracking(config.trackers, folder)
    accelerator = Accelerator(cpu=not uses_gpu(device), mixed_precision=config.precision, **keywords)
    tokenizer = Tokenizer.load(folder) if step else _fit_tokenizer(dataset, config)
    table = TokenTable(dataset, tokenizer, config, accelerator.device)
    rank, processes = accelerator.process_index, accelerator.num_processes
    make_windows = partial(dataset.windows, config.window, device=accelerator.device)
    training_windows = make_windows(episodes=training)
    goals = window_goals(dataset, training_windows, tokenizer, config)
    batches = TrainingBatches(table, training_windows, config, rank, processes, goals)
    measured = None
    if held_out is not None:
        size = config.batch_size // (processes * config.accumulation)
        kept, episodes = held_out
        kept_table = table if kept is dataset else TokenTable(kept, tokenizer, config, accelerator.device)
        kept_windows = kept.windows(config.window, episodes=episodes, device=accelerator.device)
        kept_goals = window_goals(kept, kept_windows, tokenizer, config)
        measured = HeldOut(kept_table, kept_windows, config.eval_windows, size, kept_goals)
    about = {"format": 1, "processes": processes, "fingerprint": table.fingerprint(), "updates": config.updates}
    raw, model, optimizer = build(dataset, tokenizer, config, accelerator)
    run = Run(config, folder, accelerator, raw, model, optimizer, batches, measured, about)
    if step:
        restore(run, step)
        if accelerator.is_main_process:
            checkpoint.save_training(folder, config)
    elif accelerator.is_main_process:
        run_folder.make_run_folder(folder)
        begun(folder)
        checkpoint.save_settings(folder, tokenizer, dataset.info, config)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state.clean(folder)
    return _loop(run)


def gradients(model: nn.Module, accelerator: Accelerator, parts: list[TokenBatch], counts: Tensor) -> Tensor:
    """Add the gradients of the mean loss over the global batch, whatever its division into processes and parts.

    Args:
        parts: this process's share.
        counts: (4,) targets of each kind in the global batch.

    Returns:
        (5,) this process's summands of the mean losses: the weighted loss, then the cross-entropy of each kind.
    """
    summands = torch.zeros(5, device=counts.device)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        # Processes exchange gradients once an update, and average them: hence the factor.
        with nullcontext() if last else accelerator.no_sync(model):
            output = model(part.tokens, targets=part.targets, valid=part.valid, goals=part.goals)
            share = output.loss * (part.counts.sum() / counts.sum())
            accelerator.backward(share * accelerator.num_processes)
        kinds = torch.stack([output.losses[kind] for kind in KINDS])
        summands[0] += share.detach()
        summands[1:] += torch.where(part.counts > 0, kinds * part.counts / counts, 0).detach()
    return summands


def _fit_tokenizer(dataset: OfflineDataset, config: TrainConfig) -> Tokenizer:
    # On all episodes, held-out ones too: the bins are the alphabet that losses are compared in.
    info = dataset.info
    actions = [info.num_actions] * dataset.action_dim
    discrete = [None] * dataset.observation_dim + actions + [None, None]
    joined = dataset.joined(config.discount, config.termination_penalty)
    return fit_tokenizer(config.tokenizer, joined, config.bins, discrete)


def build(
    dataset: OfflineDataset, tokenizer: Tokenizer, config: TrainConfig, accelerator: Accelerator
) -> tuple[TrajectoryTransformer, nn.Module, torch.optim.Optimizer]:
    """The seeded model for a dataset and its tokens: bare, as prepared for the processes, and its optimiser."""
    names = ("n_layer", "n_head", "n_embd", "embd_pdrop", "attn_pdrop", "resid_pdrop", "bins", "window")
    weights = ("observation_weight", "action_weight", "reward_weight", "return_weight")
    torch.manual_seed(config.seed)
    raw = TrajectoryTransformer(
        TrajectoryTransformerConfig(
            observation_dim=dataset.observation_dim,
            action_dim=dataset.action_dim,
            bin_counts=tokenizer.sizes.tolist(),
            **goal_settings(dataset.info, config),
            **{name: getattr(config, name) for name in names + weights},
        )
    ).to(accelerator.device)
    try:
        raw.set_attn_implementation(config.attention)
    except ImportError:
        raise ConfigError(
            f"attention is {config.attention}, whose package is not installed here; give --attention auto."
        ) from None
    raw.train()
    if config.gradient_checkpointing:
        # transformers 5.23 has a new name for it and warns about the old one, the only one of 5.17.
        getattr(raw, "activation_checkpointing_enable", raw.gradient_checkpointing_enable)()
    if config.compile:
        raw.compile()
    model, optimizer = accelerator.prepare(raw, make_optimizer(raw, config, accelerator.device))
    # Weights begin alike on every process, dropout differs.
    seeds = np.random.SeedSequence([config.seed, accelerator.process_index]).generate_state(1)
    torch.manual_seed(int(seeds[0]))
    return raw, model, optimizer


def _loop(run: Run) -> TrainResult:
    config, accelerator = run.config, run.accelerator
    total = config.updates or 0
    main = accelerator.is_main_process
    trackers = start_trackers(accelerator, to_dict(config)) if config.trackers else None
    record = Record(run.folder, run.done, run.seconds, trackers, main=main)
    wanted = False
    if main:
        _announce(run)
    with Interrupt() as interrupt, Progress(run.done, total, config, run.raw, main) as progress:
        tell_time(run, lambda: _compute(run, False), progress.write)
        progress.start()
        while not run.over and not wanted:
            stats, wanted = _update(run, interrupt.wanted)
            run.done += 1
            logged = run.done % config.log_every == 0 or run.done == total
            progress.step(stats["loss"])
            speed = progress.speed
            losses = _held_out_losses(run)
            # After the measurement, which a run's time includes.
            run.seconds = record.seconds
            if logged or losses:
                values = {"update": run.done, "epoch": run.batches.order.epoch_of(run.done)} | stats
                values |= losses | {"seconds": round(run.seconds, 3), "tokens_per_second": round(speed)}
                record.write(values)
                progress.show(values, run.best)
            if run.over or wanted or run.done % config.save_every == 0:
                record.sync()
                save(run)
    record.close()
    return TrainResult(run.done, not run.over, record.last, run.kept, run.best.loss, run.stopped_early)


def _announce(run: Run) -> None:
    config, accelerator = run.config, run.accelerator
    updates, windows = config.updates or 0, len(run.batches.windows)
    parameters = sum(p.numel() for p in run.raw.parameters())
    tokens = config.batch_size * config.window * run.raw.config.transition_dim
    print(
        f"{parameters / 1e6:.2f}M parameters, {updates:,} updates of {tokens:,} tokens "
        f"({updates * config.batch_size / windows:,.4g} passes over {windows:,} windows), on "
        f"{accelerator.num_processes} x {accelerator.device.type}, mixed precision: {config.precision}.",
        file=sys.stderr,
    )


def _held_out_losses(run: Run) -> dict[str, float]:
    """The held-out losses as metrics, after an update that they are measured at; else nothing."""
    if run.held_out is None or (run.done % run.config.eval_every and run.done != run.config.updates):
        return {}
    losses = run.held_out.losses(run.model, run.accelerator)
    run.best.measured(run.done, losses["loss"], run.model)
    return {f"held_out/{name}": value for name, value in losses.items()}


def _update(run: Run, interrupted: bool) -> tuple[dict[str, float], bool]:
    """One update of the weights; gives its losses and whether any process was asked to stop."""
    rate = learning_rate(run.done, run.config)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    values, stop = _compute(run, interrupted)
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(values[name]):
            _stop_not_finite(run, name.replace("_", " "), values[name])
    run.optimizer.step()
    run.optimizer.zero_grad()
    return values | {"learning_rate": rate}, stop


def _compute(run: Run, interrupted: bool) -> tuple[dict[str, float], bool]:
    """The gradients of the next update, its losses, and whether any process was asked to stop."""
    config, accelerator = run.config, run.accelerator
    parts, counts = run.batches.batch(run.done)
    summands = gradients(run.model, accelerator, parts, counts)
    norm: Any = accelerator.clip_grad_norm_(run.model.parameters(), config.grad_clip)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    flag = torch.tensor([float(interrupted)], device=summands.device)
    *losses, stop = accelerator.reduce(torch.cat([summands, flag])).tolist()
    values = dict(zip(("loss", *(f"loss/{kind}" for kind in KINDS)), losses, strict=True))
    return values | {"gradient_norm": float(norm)}, stop > 0


def _stop_not_finite(run: Run, name: str, value: float) -> None:
    last = state.newest_state(run.folder / state.STATES)
    episodes = ", ".join(map(str, run.batches.episodes(run.done)))
    raise TrajplanError(
        f"The {name} is {value} at update {run.done + 1}, which was not applied; its batch drew on the episodes "
        f"{episodes}; the last good checkpoint is {last or 'none, as none was saved yet'}. "
        f"{run_folder.other_settings(run.folder)}"
    )
