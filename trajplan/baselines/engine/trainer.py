"""One trainer for all methods: batches from the device, metrics, states to resume from, evaluation on the way.

Which transitions a batch holds, and every other random number, comes from torch's generators, whose states are kept
with the run's: a run that was killed and resumed ends with the weights of one that was not.

A method whose settings are a `ModelBasedConfig` gets a dynamics model, learned before its first update; its batches are
then the model's, and so is a part of the run's state. Nothing else tells the methods apart.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from trajplan.baselines.dynamics.learned_model import draw_report, prepare_model
from trajplan.baselines.engine import checkpoint
from trajplan.baselines.engine.method import Metrics
from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.engine.preflight import Ready, preflight
from trajplan.baselines.engine.run_state import Evaluate, Run, fingerprint_of, restore, save, save_run_state
from trajplan.baselines.engine.scaling import scaled_dataset
from trajplan.baselines.engine.settings import FREE_ON_RESUME, RunConfig
from trajplan.baselines.engine.updates import Updates
from trajplan.baselines.registry import method_named
from trajplan.baselines.settings import GoalConfig
from trajplan.config import changes, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.data.goals import GoalTransitions
from trajplan.data.transitions import Batch, Transitions
from trajplan.devices import choose_device, cpu_gains_by_bf16
from trajplan.errors import CheckpointError, TrajplanError
from trajplan.files import read_json
from trajplan.models.networks import Dimensions, learn_in_bf16
from trajplan.runs import folder as run_folder
from trajplan.runs import state
from trajplan.runs.bar import Bar
from trajplan.runs.interrupt import Interrupt
from trajplan.runs.metrics import read_metrics
from trajplan.runs.record import Record
from trajplan.runs.result import TrainResult
from trajplan.runs.trackers import start_trackers, tracking


@dataclass(frozen=True)
class Task:
    """A method and a dataset as the method sees it, for one run or for several that differ in nothing but the seed."""

    dataset: OfflineDataset
    name: str
    config: Any
    ready: Ready
    transitions: Transitions
    fingerprint: str
    device: torch.device


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
        resume: resume the run in `output` from its newest complete state, exactly.
        evaluate: measures the policy every `eval_every` updates and at the end, such as `evaluation_for` of
            `trajplan.evaluation.during_training`; the numbers go to metrics.jsonl. None: it is never measured.
        device: where it trains; None: a GPU if there is one.
        progress: whether to show a bar on standard error.
    """
    folder = Path(output)
    task = prepare(dataset, name, config, run_config, choose_device(device))
    run, step = begin(task, folder, run_config, resume=resume, evaluate=evaluate)
    method: Any = run.method
    scaling, reward, split = task.ready.scaling, task.ready.reward, task.ready.split
    with Interrupt() as interrupt:
        if split is not None:
            if not step:
                # Ties the model, which takes a while, to the content of the dataset.
                step = save_run_state(run)
            run.model = prepare_model(
                method, dataset, task.transitions, split, scaling, reward, config, run_config.seed, folder,
                stopped=lambda: interrupt.wanted, visible=progress,
            )  # fmt: skip
            if run.model is None:
                return TrainResult(0, True)
        if step:
            restore(run, step)
        if run.model is not None and not run.done:
            run.seconds = run.model.seconds
        updates = Updates(run.method, lambda: _draw(run), run_config.updates, run.device)
        if progress:
            announce([run])
        (result,) = loop([run], updates, interrupt, progress)
    if isinstance(result, TrajplanError):
        raise result
    if run.model is not None:
        draw_report(folder)
    return result


def prepare(dataset: OfflineDataset, name: str, config: Any, run_config: RunConfig, device: torch.device) -> Task:
    """What does not depend on the seed, but for the split of a dynamics model's data."""
    ready = preflight(dataset, name, config, run_config)
    seen = scaled_dataset(dataset, ready.scaling, *ready.reward)
    transitions = transitions_for(name, config, seen, ready.episodes, device)
    ready = ready._replace(scaling=ready.scaling.to(device))
    return Task(dataset, name, config, ready, transitions, fingerprint_of(seen), device)


def transitions_for(
    name: str, config: Any, seen: OfflineDataset, episodes: np.ndarray | None, device: torch.device
) -> Transitions:
    """What a method's batches are drawn from: with goals or with returns where its settings or its entry say so."""
    if isinstance(config, GoalConfig):
        return GoalTransitions(
            seen,
            config.actor_goals,
            config.value_goals,
            steps=config.lookahead,
            discount=config.discount,
            episodes=episodes,
            device=device,
        )
    discount = config.discount if method_named(name).returns else None
    return seen.transitions(episodes=episodes, device=device, discount=discount)


def begin(
    task: Task, folder: Path, run_config: RunConfig, *, resume: bool, evaluate: Evaluate | None
) -> tuple[Run, Path | None]:
    """A run with its initial weights, drawn from torch's default generators, and the state to resume from, if any."""
    dataset, name, config, ready = task.dataset, task.name, task.config, task.ready
    resumed = run_folder.resumes(folder, resume)
    if resumed:
        run_folder.check_same_dataset(folder, dataset.info)
    run_config = replace(run_config, precision=_precision(run_config, folder if resumed else None, task.device))
    if resumed:
        _check_same_settings(folder, name, config, run_config)
    torch.manual_seed(run_config.seed)
    method = ready.method_class(Dimensions.of(dataset.info), config).to(task.device)
    if run_config.precision == "bf16":
        learn_in_bf16(method)
    about = {"format": 1, "processes": 1, "fingerprint": task.fingerprint, "updates": run_config.updates}
    policy = BaselinePolicy(name, method, ready.scaling, dataset.info)
    run = Run(
        name, run_config, folder, method, ready.scaling, policy, task.transitions, evaluate, task.device, about
    )  # fmt: skip
    step = run_folder.newest_checkpoint(folder) if resumed else None
    if step:
        run_folder.check_same_state(step, read_json(step / "state.json"), task.fingerprint, 1)
    else:
        run_folder.make_run_folder(folder)
        scale, shift = ready.reward
        transform = {"name": run_config.reward_transform, "scale": scale, "shift": shift}
        checkpoint.save_settings(folder, name, config, run_config, dataset.info, transform)
    state.clean(folder)
    return run, step


def _precision(run_config: RunConfig, folder: Path | None, device: torch.device) -> Literal["no", "bf16"]:
    """What `auto` means on a device; of the run in a folder that is resumed, what it was settled to."""
    if run_config.precision != "auto":
        return run_config.precision
    if folder is not None:
        settled = checkpoint.saved_settings(folder)[2].precision
        return "bf16" if settled == "bf16" else "no"
    return "bf16" if device.type == "cpu" and cpu_gains_by_bf16() else "no"


def loop(
    runs: Sequence[Run], updates: Callable[[int], Metrics], interrupt: Interrupt, visible: bool
) -> list[TrainResult | TrajplanError]:
    """Do the updates that are left of runs that are equally far, and keep their folders up to date.

    Args:
        runs: one, or those of several seeds whose updates are computed together.
        updates: the update after so many; its metrics are of no shape, or one number a run.
        interrupt: stops after the next update.
        visible: whether to show a bar.

    Returns:
        How each run ended, as an error where a number was not finite: the others go on.
    """
    config, done = runs[0].config, runs[0].done
    records = [Record(run.folder, run.done, run.seconds, _trackers(run)) for run in runs]
    errors: dict[Path, TrajplanError] = {}
    wanted = False
    with Bar(done, config.updates, visible) as bar:
        while done < config.updates and not wanted and len(errors) < len(runs):
            for run in runs:
                if run.model is not None:
                    run.model.roll_out(done)
            measured = updates(done)
            done += 1
            wanted = interrupt.wanted
            due = _due(runs[0], done, wanted)
            bar.advance()
            if not any(due):
                continue
            speed = round(bar.speed, 1)
            for run, record, numbers in zip(runs, records, _numbers(measured), strict=True):
                if run.folder in errors:
                    continue
                run.done = done
                if error := _not_finite(run, numbers):
                    errors[run.folder] = error
                else:
                    _keep(run, record, numbers | {"updates_per_second": speed}, due, bar)
            if due.logged or due.evaluated:
                bar.restart_clock()
    for record in records:
        record.close()
    return [
        errors.get(run.folder) or TrainResult(done, done < config.updates, record.last)
        for run, record in zip(runs, records, strict=True)
    ]


class Due(NamedTuple):
    """What is to be done after an update."""

    logged: bool
    evaluated: bool
    saved: bool


def _due(run: Run, done: int, wanted: bool) -> Due:
    config = run.config
    last = done == config.updates
    evaluated = run.evaluate is not None and config.eval_every > 0 and (last or done % config.eval_every == 0)
    return Due(last or done % config.log_every == 0, evaluated, last or wanted or done % config.save_every == 0)


def _keep(run: Run, record: Record, numbers: dict[str, float], due: Due, bar: Bar) -> None:
    if due.logged or due.evaluated:
        values = {"update": run.done} | numbers
        if due.evaluated:
            values |= _evaluation(run)
            bar.write(f"{_line(run, values)}, {bar.time_left()} left")
        record.write(values | {"seconds": round(record.seconds, 3)})
        if due.evaluated:
            _draw_values(run.folder)
    run.seconds = record.seconds
    if due.saved:
        record.sync()
        with run.random():
            save(run)


def _trackers(run: Run) -> Any:
    if not run.config.trackers:
        return None
    from accelerate import Accelerator  # slow to import, and of no other use here

    accelerator = Accelerator(cpu=run.device.type == "cpu", **tracking(run.config.trackers, run.folder))
    name, settings, _ = checkpoint.saved_settings(run.folder)
    return start_trackers(accelerator, {"method": name} | to_dict(settings) | to_dict(run.config))


def _draw(run: Run) -> Batch:
    size = run.config.batch_size
    return run.transitions.sample(size) if run.model is None else run.model.batch(size)


def _draw_values(folder: Path) -> None:
    # Here, as a run without evaluation needs no matplotlib.
    from trajplan.baselines.engine.value_picture import PICTURE, save_value_picture

    save_value_picture(read_metrics(folder), folder / PICTURE)


def announce(runs: Sequence[Run]) -> None:
    """Say on standard error what is trained."""
    run = runs[0]
    parameters = sum(tensor.numel() for tensor in run.method.state_dict().values())
    seeds = f", seeds {', '.join(str(one.config.seed) for one in runs)} together" if len(runs) > 1 else ""
    print(
        f"{run.name}{seeds}: {parameters / 1e6:.2f}M parameters, targets included; {run.config.updates:,} updates of "
        f"{run.config.batch_size} of {len(run.transitions):,} transitions, on {run.device}.",
        file=sys.stderr,
    )


def _line(run: Run, values: dict[str, Any]) -> str:
    results = ", ".join(
        f"{key.removeprefix('evaluation/')} {value:.1f}"
        for key, value in values.items()
        if key.startswith("evaluation/")
    )
    return f"{run.label}update {values['update']:,}: {results}; {values['updates_per_second']:,.0f} updates/s"


def _numbers(measured: Metrics) -> list[dict[str, float]]:
    """The metrics of each run, read from the device at once."""
    rows = torch.stack([value.float().reshape(-1) for value in measured.values()], dim=1).tolist()
    return [dict(zip(measured, row, strict=True)) for row in rows]


def _not_finite(run: Run, numbers: Mapping[str, float]) -> TrajplanError | None:
    for name, value in numbers.items():
        if not math.isfinite(value):
            last = state.newest_state(run.folder / state.STATES)
            return TrajplanError(
                f"{name} is {value} at update {run.done}, and nothing was saved; the last good checkpoint is "
                f"{last or 'none, as none was saved yet'}. {run_folder.other_settings(run.folder)}"
            )
    return None


def _evaluation(run: Run) -> dict[str, float]:
    assert run.evaluate is not None
    # What an environment or a user's evaluation draws must not change the training.
    devices = [run.device] if run.device.type == "cuda" else []
    with run.random(), torch.random.fork_rng(devices=devices):
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
    run_folder.refuse_changes(folder, changes(config, settings) + changes(run_config, run, FREE_ON_RESUME))
