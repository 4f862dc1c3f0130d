"""One trainer for all methods: batches from the device, metrics, states to resume from, evaluation on the way.

Which transitions a batch holds, and every other random number, comes from torch's generators, whose states are kept
with the run's: a run that was killed and resumed ends with the weights of one that was not.

A method whose settings are a `ModelBasedConfig` gets a dynamics model, learned before its first update; its batches are
then the model's, and so is a part of the run's state. Nothing else tells the methods apart.
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajplan.baselines.dynamics.learned_model import draw_report, prepare_model
from trajplan.baselines.engine import checkpoint
from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.engine.preflight import preflight
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
from trajplan.devices import choose_device
from trajplan.errors import CheckpointError, TrajplanError
from trajplan.files import read_json
from trajplan.models.networks import Dimensions
from trajplan.runs import folder as run_folder
from trajplan.runs import state
from trajplan.runs.bar import Bar
from trajplan.runs.interrupt import Interrupt
from trajplan.runs.metrics import read_metrics
from trajplan.runs.record import Record
from trajplan.runs.result import TrainResult
from trajplan.runs.trackers import start_trackers, tracking


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
    folder, on, seed = Path(output), choose_device(device), run_config.seed
    method_class, scaling, (scale, shift), episodes, split = preflight(dataset, name, config, run_config)
    resumed = run_folder.resumes(folder, resume)
    if resumed:
        run_folder.check_same_dataset(folder, dataset.info)
        _check_same_settings(folder, name, config, run_config)
    seen = scaled_dataset(dataset, scaling, scale, shift)
    transitions = transitions_for(name, config, seen, episodes, on)
    torch.manual_seed(seed)
    method = method_class(Dimensions.of(dataset.info), config).to(on)
    fingerprint = fingerprint_of(seen)
    about = {"format": 1, "processes": 1, "fingerprint": fingerprint, "updates": run_config.updates}
    scaling = scaling.to(on)
    policy = BaselinePolicy(name, method, scaling, dataset.info)
    run = Run(name, run_config, folder, method, scaling, policy, transitions, evaluate, on, about)
    step = run_folder.newest_checkpoint(folder) if resumed else None
    if step:
        run_folder.check_same_state(step, read_json(step / "state.json"), fingerprint, 1)
    else:
        run_folder.make_run_folder(folder)
        transform = {"name": run_config.reward_transform, "scale": scale, "shift": shift}
        checkpoint.save_settings(folder, name, config, run_config, dataset.info, transform)
    state.clean(folder)
    with Interrupt() as interrupt:
        if split is not None:
            if not step:
                # Ties the model, which takes a while, to the content of the dataset.
                step = save_run_state(run)
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


def transitions_for(
    name: str, config: Any, seen: OfflineDataset, episodes: np.ndarray | None, device: torch.device
) -> Transitions:
    """What a method's batches are drawn from: with goals or with returns where its settings or its entry say so."""
    if isinstance(config, GoalConfig):
        return GoalTransitions(seen, config.actor_goals, config.value_goals, episodes=episodes, device=device)
    discount = config.discount if method_named(name).returns else None
    return seen.transitions(episodes=episodes, device=device, discount=discount)


def _loop(run: Run, interrupt: Interrupt, visible: bool) -> TrainResult:
    config = run.config
    record = Record(run.folder, run.done, run.seconds, _trackers(run))
    updates = Updates(run.method, lambda: _draw(run), config.updates, run.device)
    wanted = False
    if visible:
        _announce(run)
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
                record.write(values | {"seconds": round(record.seconds, 3)})
                if evaluated:
                    _draw_values(run.folder)
                bar.restart_clock()
            run.seconds = record.seconds
            if saved:
                record.sync()
                save(run)
    record.close()
    return TrainResult(run.done, run.done < config.updates, record.last)


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
            last = state.newest_state(run.folder / state.STATES)
            raise TrajplanError(
                f"{name} is {value} at update {run.done}, and nothing was saved; the last good checkpoint is "
                f"{last or 'none, as none was saved yet'}. {run_folder.other_settings(run.folder)}"
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
    run_folder.refuse_changes(folder, changes(config, settings) + changes(run_config, run, FREE_ON_RESUME))
