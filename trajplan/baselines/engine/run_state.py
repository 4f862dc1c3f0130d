"""A run of the trainer, and how its states are written and read."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trajplan.baselines.dynamics.learned_model import LearnedModel
from trajplan.baselines.engine import checkpoint
from trajplan.baselines.engine.method import Method
from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.engine.settings import RunConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.data.transitions import Transitions
from trajplan.errors import CheckpointError
from trajplan.files import read_json
from trajplan.models.scaling import Scaling
from trajplan.runs import state
from trajplan.runs.tensors import read_tensors

# Before the names of the model's tensors in a checkpoint.
MODEL = "model/"

Evaluate = Callable[[BaselinePolicy], dict[str, float]]


@dataclass
class Run:
    """What the loop works on."""

    name: str
    config: RunConfig
    folder: Path
    method: Method
    scaling: Scaling
    policy: BaselinePolicy
    transitions: Transitions
    evaluate: Evaluate | None
    device: torch.device
    about: dict[str, Any]
    model: LearnedModel | None = None
    done: int = 0
    seconds: float = 0.0
    # Of one that shares its process: its name before what is said of it, and within which torch's generators are its.
    label: str = ""
    random: Callable[[], AbstractContextManager[None]] = nullcontext


def save(run: Run) -> None:
    """Write a state, and the model that users load."""
    save_run_state(run)
    checkpoint.save_model(run.folder, checkpoint.weights_of(run.method, run.scaling))


def save_run_state(run: Run) -> Path:
    """Write what an exact resume needs; gives its folder."""
    weights = checkpoint.weights_of(run.method, run.scaling)
    moments = state.moments_of(run.method.optimizers)
    # Large, and of no use to a run that is over.
    if run.model is not None and run.done < run.config.updates:
        moments |= {f"{MODEL}{name}": value for name, value in run.model.state().items()}
    about = run.about | {"update": run.done, "seconds": run.seconds}
    return state.save_state(run.folder / state.STATES, weights, moments, state.random_states(run.device), about)


def restore(run: Run, step: Path) -> None:
    """Go back to the state in the folder `step`."""
    about = read_json(step / "state.json")
    weights, moments, random = (read_tensors(step / name) for name in state.FILES)
    checkpoint.restore_weights(step / state.FILES[0], weights, run.method, run.policy.info)
    rollouts = {name: moments.pop(name) for name in list(moments) if name.startswith(MODEL)}
    try:
        state.restore_moments(run.method.optimizers, moments)
        if run.model is not None and rollouts:
            run.model.restore({name.removeprefix(MODEL): value for name, value in rollouts.items()})
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{step} does not fit the method: {error}; give another --output.") from None
    state.restore_random_states(step, random, run.device)
    run.done, run.seconds = about["update"], about["seconds"]
    # The run may have been killed between writing its state and its model.
    if run.done:
        checkpoint.save_model(run.folder, weights)


def fingerprint_of(dataset: OfflineDataset) -> str:
    """A digest of everything in a dataset that training reads."""
    digest = hashlib.sha256()
    for array in (dataset.observations, dataset.actions, dataset.rewards, dataset.terminations, dataset.offsets):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
