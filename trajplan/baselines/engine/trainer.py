"""One trainer for all methods: batches from the device, metrics, checkpoints, exact resume, evaluation on the way.

Which transitions a batch holds, and every other random number, comes from torch's generators, whose states are part of
a checkpoint: a run that was killed and resumed ends with the weights of one that was not.

A method whose settings are a `ModelBasedConfig` gets a dynamics model, learned before its first update; its batches are
then the model's, and so is a part of the checkpoint. Nothing else tells the methods apart.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trajplan.baselines.dynamics.learned_model import draw_report, prepare_model
from trajplan.baselines.engine import checkpoint
from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.engine.preflight import preflight
from trajplan.baselines.engine.run_state import Evaluate, Run, fingerprint_of, restore, save, save_checkpoint
from trajplan.baselines.engine.scaling import scaled_dataset
from trajplan.baselines.engine.updates import Updates
from trajplan.baselines.registry import method_named
from trajplan.baselines.settings import FREE_ON_RESUME, RunConfig
from trajplan.config import changes, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.data.transitions import Batch
from trajplan.devices import choose_device
from trajplan.errors import CheckpointError, TrajplanError
from trajplan.files import read_json, remove_partial
from trajplan.models.networks import Dimensions
from trajplan.runs.bar import Bar
from trajplan.runs.interrupt import Interrupt
from trajplan.runs.metrics import MetricsFile, read_metrics
from trajplan.runs.trackers import Trackers
from trajplan.training import state
from trajplan.training.result import TrainResult
from trajplan.training.resume import (
    STATES,
    check_same_dataset,
    check_same_state,
    holds_run,
    make_run_folder,
    newest_checkpoint,
    other_settings,
    refuse_changes,
    refuse_existing,
)


def train(
    dataset: OfflineDataset,
    output: str | Path,
    name: str,
    config: Any,
    run_config: RunConfig,
    *,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    device: str | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train a method and keep `output`, a folder that `trajplan.load` reads, up to date.

    Args:
        dataset: what to learn from.
        output: the folder; made if it is not there.
        name: of the method in the registry.
        config: its settings, of the class that the registry names.
        run_config: settings of the run.
        resume: continue the run in `output` from its newest whole checkpoint, exactly.
        evaluate: measures the policy every `eval_every` updates and at the end, such as `evaluation_for` of
            `trajplan.evaluation.during_training`; the numbers go to metrics.jsonl. None: it is never measured.
        device: where it trains; None: a GPU if there is one.
        progress: whether to show a bar on standard error.

    Raises:
        CheckpointError: if `output` holds a run and `resume` is not set, the run there had other settings or data, its
            model is there and its checkpoints are not, it holds files that would be written over, or it cannot be
            made.
        ConfigError: for an unknown method or device, a method that does not fit the dataset's actions, or a tracker
            that is not installed.
        DataError: for a dataset that the method cannot learn from.
        TrajplanError: if a metric is not finite; nothing is saved then.
    """
    folder, on = Path(output), choose_device(device)
    entry, seed = method_named(name), run_config.seed
    method_class, scaling, (scale, shift), episodes, split = preflight(dataset, name, config, run_config)
    continued = resume and holds_run(folder)
    if continued:
        check_same_dataset(folder, dataset.info)
        _check_same_settings(folder, name, config, run_config)
    else:
        refuse_existing(folder, resume=resume)
    seen = scaled_dataset(dataset, scaling, scale, shift)
    discount = config.discount if entry.returns else None
    transitions = seen.transitions(episodes=episodes, device=on, discount=discount)
    torch.manual_seed(seed)
    method = method_class(Dimensions.of(dataset.info), config).to(on)
    fingerprint = fingerprint_of(seen)
    about = {"format": 1, "processes": 1, "fingerprint": fingerprint, "updates": run_config.updates}
    scaling = scaling.to(on)
    policy = BaselinePolicy(name, method, scaling, dataset.info)
    run = Run(name, run_config, folder, method, scaling, policy, transitions, evaluate, on, about)
    step = newest_checkpoint(folder) if continued else None
    if step:
        check_same_state(step, read_json(step / "state.json"), fingerprint, 1)
    else:
        make_run_folder(folder)
        remove_partial(folder)
        transform = {"name": run_config.reward_transform, "scale": scale, "shift": shift}
        checkpoint.save_settings(folder, name, config, run_config, dataset.info, transform)
    state.clean(folder / STATES)
    with Interrupt() as interrupt:
        if split is not None:
            if not step:
                # Ties the model, which takes a while, to the content of the dataset.
                step = save_checkpoint(run)
            run.model = prepare_model(
                method, dataset, transitions, split, scaling, (scale, shift), config, seed, folder,
                stopped=lambda: interrupt.wanted, visible=progress,
            )  # fmt: skip
            if run.model is None:
                return TrainResult(0, True)
        if step:
            restore(run, step)
        if run.model is not None and not run.done:
            run.seconds = run.model.seconds
        result = _loop(run, interrupt, progress)
    if run.model is not None:
        draw_report(folder)
    return result


def _loop(run: Run, interrupt: Interrupt, visible: bool) -> TrainResult:
    config = run.config
    metrics = MetricsFile(run.folder, run.done)
    updates = Updates(run.method, lambda: _draw(run), config.updates, run.device)
    trackers = _trackers(run)
    values: dict[str, Any] = {}
    wanted = False
    if visible:
        _announce(run)
    started = time.perf_counter() - run.seconds
    with Bar(run.done, config.updates, visible) as bar:
        while run.done < config.updates and not wanted:
            if run.model is not None:
                run.model.roll_out(run.done)
            measured = updates(run.done)
            run.done += 1
            wanted = interrupt.wanted
            last = run.done == config.updates
            logged = last or run.done % config.log_every == 0
            evaluated = run.evaluate is not None and config.eval_every > 0
            evaluated = evaluated and (last or run.done % config.eval_every == 0)
            saved = last or wanted or run.done % config.save_every == 0
            bar.advance()
            if not (logged or evaluated or saved):
                continue
            numbers = _numbers(run, measured)
            if logged or evaluated:
                values = {"update": run.done} | numbers | {"updates_per_second": round(bar.speed, 1)}
                if evaluated:
                    values |= _evaluation(run)
                    bar.write(f"{_line(values)}, {bar.time_left()} left")
                values["seconds"] = round(time.perf_counter() - started, 3)
                metrics.write(values)
                trackers.log(values)
                if evaluated:
                    _draw_values(run.folder)
                bar.restart_clock()
            run.seconds = time.perf_counter() - started
            if saved:
                metrics.sync()
                save(run)
    metrics.close()
    trackers.close()
    return TrainResult(run.done, run.done < config.updates, values)


def _trackers(run: Run) -> Trackers:
    name, settings, _ = checkpoint.saved_settings(run.folder)
    known = {"method": name} | to_dict(settings) | to_dict(run.config)
    return Trackers(run.config.trackers, run.folder, known, cpu=run.device.type == "cpu")


def _draw(run: Run) -> Batch:
    size = run.config.batch_size
    return run.transitions.sample(size) if run.model is None else run.model.batch(size)


def _draw_values(folder: Path) -> None:
    # Here, as a run without evaluation needs no matplotlib.
    from trajplan.baselines.engine.value_picture import PICTURE, save_value_picture

    save_value_picture(read_metrics(folder), folder / PICTURE)


def _announce(run: Run) -> None:
    parameters = sum(tensor.numel() for tensor in run.method.state_dict().values())
    print(
        f"{run.name}: {parameters / 1e6:.2f}M parameters, targets included; {run.config.updates:,} updates of "
        f"{run.config.batch_size} of {len(run.transitions):,} transitions, on {run.device}.",
        file=sys.stderr,
    )


def _line(values: dict[str, Any]) -> str:
    results = ", ".join(
        f"{key.removeprefix('evaluation/')} {value:.1f}"
        for key, value in values.items()
        if key.startswith("evaluation/")
    )
    return f"update {values['update']:,}: {results}; {values['updates_per_second']:,.0f} updates/s"


def _numbers(run: Run, measured: dict[str, Tensor]) -> dict[str, float]:
    numbers = dict(zip(measured, torch.stack([value.float() for value in measured.values()]).tolist(), strict=True))
    for name, value in numbers.items():
        if not math.isfinite(value):
            last = state.newest_state(run.folder / STATES)
            raise TrajplanError(
                f"{name} is {value} at update {run.done}, and nothing was saved; the last good checkpoint is "
                f"{last or 'none, as none was saved yet'}. {other_settings(run.folder)}"
            )
    return numbers


def _evaluation(run: Run) -> dict[str, float]:
    assert run.evaluate is not None
    # What an environment or a user's evaluation draws must not change the training.
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        run.method.train(False)
        values = {f"evaluation/{name}": value for name, value in run.evaluate(run.policy).items()}
        returns = run.model.returns() if run.model is not None else {}
        run.method.train()
    return values | returns


def _check_same_settings(folder: Path, name: str, config: Any, run_config: RunConfig) -> None:
    before, settings, run = checkpoint.saved_settings(folder)
    if name != before:
        raise CheckpointError(
            f"{folder} holds a run of {before}, which cannot be resumed as {name}: give trajplan baseline {before} "
            "--resume, or another --output."
        )
    changed = changes(config, settings) + changes(run_config, run, FREE_ON_RESUME)
    refuse_changes(folder, changed)
