"""`trajplan.dynamics`: learn a dynamics ensemble by itself, for the planners that plan on one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trajplan.baselines.dynamics import prior as behaviour
from trajplan.baselines.dynamics import training
from trajplan.baselines.dynamics.checkpoint import WEIGHTS, save_ensemble, save_settings, saved_settings
from trajplan.baselines.dynamics.learned_model import draw_report, report
from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.baselines.engine.run_state import fingerprint_of
from trajplan.card import write_card
from trajplan.config import changes, from_dict, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.devices import choose_device
from trajplan.errors import ConfigError
from trajplan.files import read_json, write_json
from trajplan.models.scaling import Scaling
from trajplan.planners.cem import CEMConfig
from trajplan.planners.settings import save_planner
from trajplan.runs import folder as run_folder
from trajplan.runs import state
from trajplan.runs.interrupt import Interrupt
from trajplan.runs.metrics import read_metrics
from trajplan.runs.record import Record
from trajplan.runs.result import TrainResult
from trajplan.runs.trackers import check_trackers, start_trackers, tracker_names, tracking

# May differ when a run is resumed.
FREE_ON_RESUME = frozenset({"trackers"})
STATE = "state.json"


def dynamics(
    dataset: OfflineDataset | str | Sequence[str] | None,
    output: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> TrainResult:
    """Learn a dynamics ensemble as `trajplan dynamics` does, into a folder that `trajplan.load` reads: acting by `cem`.

    Args:
        dataset: a dataset, or the Minari id of one, or of several that train as one. None: that of the run to resume.
        output: the run's folder; made if it is not there.
        resume: resume the run in `output` from its last whole epoch, exactly, with its settings.
        device: where it trains; None: a GPU if there is one.
        progress: whether to show a bar and a line for each epoch on standard error.
        settings: by the names of `trajplan dynamics --help`, underscores for hyphens.

    Raises:
        CheckpointError: if `output` holds a run and `resume` is not set, or cannot be resumed or written.
        ConfigError: for an unknown setting or device, a value out of range, or Discrete actions.
        DataError: for a dataset that is not there or cannot be used.
        TrajplanError: if a held-out loss is not finite.
    """
    on, folder = choose_device(device), Path(output)
    config = from_dict(DynamicsConfig, settings)
    resumed = run_folder.resumes(folder, resume)
    data = run_folder.open_dataset(dataset, folder, resumed)
    if resumed:
        before = saved_settings(folder)
        run_folder.check_same_dataset(folder, data.info)
        config = from_dict(DynamicsConfig, to_dict(before) | settings)
        run_folder.refuse_changes(folder, changes(config, before, FREE_ON_RESUME))
    scaling, split = preflight(data, config)
    states, fingerprint = folder / state.STATES, fingerprint_of(data)
    if resumed and (states / STATE).exists():
        run_folder.check_same_state(states, read_json(states / STATE), fingerprint, 1)
    else:
        run_folder.newest_checkpoint(folder)
        run_folder.make_run_folder(folder)
        save_planner(folder, CEMConfig())
        save_settings(folder, config, data.info)
        write_json(states / STATE, {"fingerprint": fingerprint, "processes": 1})
    state.clean(folder)
    if (folder / WEIGHTS).exists():
        last = (read_metrics(folder) or [{"update": 0}])[-1]
        return TrainResult(last["update"], False, last)
    scaling = scaling.to(on)
    epoch = training.updates_per_epoch(int(data.lengths[split[0]].sum()), config)
    with Interrupt() as interrupt:
        journal = Journal(folder, config, epoch, on)
        how: dict[str, Any] = {"stopped": lambda: interrupt.wanted, "visible": progress, "tell": journal}
        trained = training.train_ensemble(data, split, scaling, config, states, seed=config.seed, **how)
        whole = trained is not None
        if trained is not None and config.prior:
            journal.before = len(trained.history) - 1
            trained.ensemble.prior = behaviour.train_prior(data, split, scaling, config, states, **how)
            whole = trained.ensemble.prior is not None
    journal.record.close()
    if trained is not None and whole:
        report(trained, data, split[1], scaling, folder)
        draw_report(folder)
        save_ensemble(folder, trained.ensemble)
        write_card(folder)
    return TrainResult(journal.done, not whole, journal.record.last)


class Journal:
    """Writes a line of metrics.jsonl for every epoch, of the ensemble first and then of the prior.

    Attributes:
        record: of the run.
        done: updates done, of both.
        before: epochs of the ensemble, once it is trained.

    Args:
        folder: the run's.
        config: its settings.
        epoch: updates in an epoch.
        device: where it trains.
    """

    def __init__(self, folder: Path, config: DynamicsConfig, epoch: int, device: torch.device) -> None:
        files = [folder / state.STATES / name for name in (training.PROGRESS, behaviour.PROGRESS)]
        epochs, seconds = zip(*map(training.progress_of, files), strict=True)
        self.epoch, self.done, self.before = epoch, sum(epochs) * epoch, 0
        self.record = Record(folder, self.done, sum(seconds), _trackers(folder, config, device))

    def __call__(self, learner: training.EnsembleTrainer) -> None:
        """Take note of an epoch."""
        epochs, losses = len(learner.history) - 1, learner.best_losses.sort().values
        self.done = (self.before + epochs) * self.epoch
        kind = "prior" if learner.name == "behaviour prior" else "model"
        values = {
            f"{kind}/epoch": epochs,
            f"{kind}/held_out_loss": learner.history[-1].mean().item(),
            f"{kind}/elites_held_out_loss": losses[: learner.config.model_elites].mean().item(),
            "updates_per_second": round(epochs * self.epoch / max(learner.seconds, 1e-9), 1),
            "seconds": round(self.record.seconds, 3),
        }
        self.record.write({"update": self.done} | values)
        self.record.sync()


def _trackers(folder: Path, config: DynamicsConfig, device: torch.device) -> Any:
    if not config.trackers:
        return None
    from accelerate import Accelerator  # slow to import, and of no other use here

    accelerator = Accelerator(cpu=device.type == "cpu", **tracking(config.trackers, folder))
    return start_trackers(accelerator, to_dict(config))


def preflight(dataset: OfflineDataset, config: DynamicsConfig) -> tuple[Scaling, tuple[np.ndarray, np.ndarray]]:
    """Try settings on a dataset: the scaling of its actions, and the episodes to train on and those held out."""
    check_trackers(tracker_names(config.trackers))
    check_actions(dataset.info)
    return Scaling.of(dataset.info), training.model_split(dataset, None, config, config.seed)


def check_actions(info: DatasetInfo) -> None:
    """Refuse Discrete actions, which the ensemble would take for a number on a scale."""
    if info.is_discrete:
        raise ConfigError(
            f"Dataset {info.id!r} has Discrete actions, and a dynamics ensemble is for continuous ones: train a "
            "Trajectory Transformer (trajplan train) to plan with these."
        )
