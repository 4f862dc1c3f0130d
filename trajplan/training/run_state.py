"""A run of pretraining, and how its states and its model folder are written and read."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from trajplan.files import RUN, read_json, write_json
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.runs import state
from trajplan.runs.folder import check_same_state
from trajplan.training import checkpoint, sharded
from trajplan.training.batches import TrainingBatches
from trajplan.training.best import Best
from trajplan.training.config import TrainConfig
from trajplan.training.evaluate_loss import HeldOut
from trajplan.training.optimizer import learning_rate


@dataclass
class Run:
    """What the loop works on, on one process."""

    config: TrainConfig
    folder: Path
    accelerator: Accelerator
    raw: TrajectoryTransformer
    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: TrainingBatches
    held_out: HeldOut | None
    about: dict[str, Any]
    done: int = 0
    seconds: float = 0.0
    best: Best = field(default_factory=Best)

    @property
    def stopped_early(self) -> bool:
        """Whether the run is over before its last update, as the held-out loss no longer falls."""
        return self.done < (self.config.updates or 0) and self.best.exhausts(self.config.patience)

    @property
    def over(self) -> bool:
        """Whether no update is left to do."""
        return self.done >= (self.config.updates or 0) or self.stopped_early

    @property
    def kept(self) -> int:
        """The update whose weights are in the model folder once the run has saved."""
        return self.done if self.best.update is None else self.best.update


def save(run: Run) -> None:
    """Write a training state, then the model folder; every process takes part, the main one writes."""
    weights = sharded.full_weights(run.model)
    moments = sharded.full_moments(run.model, run.optimizer)
    random = sharded.all_random_states(run.accelerator)
    if run.accelerator.is_main_process:
        about = run.about | {"update": run.done, "seconds": run.seconds, "best": run.best.about()}
        kept = weights if run.kept == run.done else run.best.weights
        state.save_state(run.folder / state.STATES, weights, moments, random, about, None if kept is weights else kept)
        _save_kept(run, kept)
    run.accelerator.wait_for_everyone()


def restore(run: Run, step: Path) -> None:
    """Go back to the state in the folder `step`; a collective call."""
    about = read_json(step / "state.json")
    check_same_state(step, about, run.about["fingerprint"], run.accelerator.num_processes)
    sharded.restore(step, run.model, run.optimizer, run.accelerator)
    run.done, run.seconds = about["update"], about["seconds"]
    # Checkpoints of earlier versions name no best weights: the first measurement from here on is the best so far.
    run.best = Best(**about.get("best", {}))
    lengthened = list(about.get("lengthened", []))
    if about["updates"] < run.about["updates"]:
        lengthened.append({"after": run.done, "updates": run.about["updates"], "before": about["updates"]})
        # The measurements of the shorter run do not count against the patience of the longer one.
        run.best.waited = 0
        if run.accelerator.is_main_process:
            print(_lengthening(run, about["updates"]), file=sys.stderr)
    run.about |= {"lengthened": lengthened} if lengthened else {}
    if run.accelerator.is_main_process:
        kept = state.kept_weights(step)
        if run.best.update is not None:
            run.best.weights = kept
        # The run may have been killed between writing its state and its model.
        _save_kept(run, kept)


def _save_kept(run: Run, weights: dict[str, torch.Tensor]) -> None:
    checkpoint.save_model(run.folder, run.raw, weights)
    kept = {"update": run.kept, "held_out_loss": run.best.loss}
    lengthened = {name: run.about[name] for name in ("lengthened",) if name in run.about}
    early = {"stopped_early": run.stopped_early}
    write_json(run.folder / RUN, {"updates": run.done, "weights": kept} | early | lengthened)


def _lengthening(run: Run, before: int) -> str:
    """What more updates mean for the learning rate, whose cosine ends with the run."""
    config, done = run.config, run.done
    last = learning_rate(done - 1, replace(config, updates=before))
    rates = f"from {last:.2g} to {learning_rate(done, config):.2g}"
    return (
        f"The run is lengthened from {before:,} to {config.updates:,} updates: the first {done:,} followed the "
        f"learning rate of a run of {before:,}, the others follow that of one of {config.updates:,}, so that it goes "
        f"{rates} now and ends at {learning_rate((config.updates or 1) - 1, config):.2g}."
    )
