"""What the trainer does for a method with a dynamics model: learn it, roll out in it, measure it, keep its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trajplan.baselines.dynamics.errors import held_out_errors
from trajplan.baselines.dynamics.rollouts import ModelRollouts
from trajplan.baselines.dynamics.settings import EnsembleConfig, ModelBasedConfig
from trajplan.baselines.dynamics.training import PROGRESS, Trained, new_ensemble, train_ensemble
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.data.transitions import Batch, Transitions
from trajplan.errors import CheckpointError
from trajplan.files import read_json, write_json
from trajplan.models.dynamics import DynamicsEnsemble, Uncertainty
from trajplan.models.policies import Policy
from trajplan.models.scaling import Scaling
from trajplan.runs.state import STATES
from trajplan.runs.tensors import read_tensors, write_tensors

WEIGHTS, REPORT = "dynamics.safetensors", "model_report.json"
# Episodes in the model beside each evaluation in the environment.
EPISODES = 20
# How far ahead the model's error is measured, at least.
REPORTED_STEPS = 10


class Actor(Protocol):
    """What is asked of a method whose policy is rolled out in a model.

    Attributes:
        policy: gives distributions over actions, on the device of the model.
    """

    policy: Policy

    def act(self, observations: Tensor) -> Tensor:
        """(B, S) standardised observations to (B, A) actions in [-1, 1], without exploration."""


@dataclass
class LearnedModel:
    """A trained model and the rollouts in it.

    Attributes:
        rollouts: in the model, of the method's policy.
        method: whose policy that is.
        starts: (n, S) first observations of episodes of the data, in the environment's units.
        horizon: steps of an episode in the model that does not end before.
        seconds: that the model's training took, in all processes.
    """

    rollouts: ModelRollouts
    method: Actor
    starts: Tensor
    horizon: int
    seconds: float = 0.0

    def roll_out(self, update: int) -> None:
        """Roll out anew before an update where that is due."""
        if update % self.rollouts.config.rollout_every == 0:
            self.rollouts.roll_out(self.method.policy)

    def batch(self, size: int) -> Batch:
        """A batch of data and rollouts."""
        return self.rollouts.mixed_batch(size)

    def state(self) -> dict[str, Tensor]:
        """What of it changes during the run, on the CPU."""
        return {name: value.cpu() for name, value in self.rollouts.buffer.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.rollouts.buffer.restore(state)

    @torch.no_grad()
    def returns(self) -> dict[str, float]:
        """Mean undiscounted returns of the policy, without exploration, in the model, in the environment's rewards.

        `model/return`, and `model/penalised_return` with the method's penalty: if the uncertainty bounds the model's
        error, this is less than the return in the environment (Yu et al. 2020, section 4.2).
        """
        config, scaling = self.rollouts.config, self.rollouts.scaling
        kind, weight = config.reward_penalty or (None, 0.0)
        alive = torch.ones(len(self.starts), device=self.starts.device)
        states, plain, penalised = self.starts, torch.zeros_like(alive), torch.zeros_like(alive)
        for _ in range(self.horizon):
            actions = scaling.environment_actions(self.method.act(scaling.observations(states)))
            step = self.rollouts.dynamics.step(states, actions, kind)
            plain += alive * step.rewards
            if step.uncertainty is not None:
                penalised += alive * (step.rewards - weight * step.uncertainty)
            alive = alive * ~step.terminations
            states = step.next_observations
        values = {"model/return": plain.mean().item()}
        return values | ({"model/penalised_return": penalised.mean().item()} if kind else {})


def report(
    trained: Trained,
    dataset: OfflineDataset,
    held_out: np.ndarray,
    scaling: Scaling,
    folder: Path,
    steps: int = REPORTED_STEPS,
    penalty: tuple[Uncertainty, float] | None = None,
) -> None:
    """Measure a trained model on held-out episodes, and write model_report.json.

    Args:
        trained: the model and its training.
        dataset: untransformed.
        held_out: numbers of the episodes.
        scaling: of the run.
        folder: the run's.
        steps: how far ahead to measure, `REPORTED_STEPS` at least.
        penalty: kind and weight of the uncertainty that rewards are lowered by.
    """
    errors = held_out_errors(trained.ensemble, dataset, held_out, scaling, max(REPORTED_STEPS, steps))
    about = {
        "epochs": len(trained.history) - 1,
        "seconds": round(trained.seconds, 3),
        "elites": trained.ensemble.elites.tolist(),
        "held_out_losses": trained.history.tolist(),
        "held_out_episodes": len(held_out),
        "rule_contradictions": trained.contradictions,
    }
    write_json(folder / REPORT, {"training": about, "held_out": errors, "penalty": penalty})


def draw_report(folder: Path) -> None:
    """Bring model_report.json and its picture up to date."""
    # Here, as only these methods need matplotlib.
    from trajplan.baselines.dynamics.report import write_report

    write_report(folder / REPORT)


def prepare_model(
    method: Actor,
    dataset: OfflineDataset,
    transitions: Transitions,
    episodes: tuple[np.ndarray, np.ndarray],
    scaling: Scaling,
    transform: tuple[float, float],
    config: ModelBasedConfig,
    seed: int,
    folder: Path,
    *,
    stopped: Callable[[], bool],
    visible: bool,
) -> LearnedModel | None:
    """The model of a run: the one in its folder, or a new one, trained now and measured on held-out episodes.

    Args:
        method: whose policy is rolled out.
        dataset: untransformed.
        transitions: the data as the method sees it.
        episodes: of `model_split`.
        scaling: between the two, on the run's device.
        transform: scale and shift of the rewards that the method sees.
        config, seed: settings of the method and the run's seed.
        folder: the run's; gets dynamics.safetensors, and model_report.json with a picture.
        stopped: whether the run should stop.
        visible: whether to show progress.

    Returns:
        The model, or None if its training was stopped: the next process resumes it.
    """
    path, states = folder / WEIGHTS, folder / STATES
    if path.exists():
        dynamics = read_dynamics(path, dataset.info, config).to(scaling.mean.device)
    else:
        trained = train_ensemble(
            dataset, episodes, scaling, config, states, seed=seed, stopped=stopped, visible=visible
        )
        if trained is None:
            return None
        dynamics = trained.ensemble
        report(trained, dataset, episodes[1], scaling, folder, config.rollout_length, config.reward_penalty)
        write_tensors(path, dynamics.state_dict())
        draw_report(folder)
    (states / PROGRESS).unlink(missing_ok=True)
    chosen = np.unique(np.linspace(0, dataset.num_episodes - 1, EPISODES).round().astype(np.int64))
    starts = torch.from_numpy(np.asarray(dataset.observations)[dataset.offsets[chosen] + chosen])
    spec = dataset.info.env_spec
    horizon = (spec.max_episode_steps if spec is not None else None) or int(dataset.lengths.max())
    rollouts = ModelRollouts(dynamics, scaling, transform, transitions, config)
    seconds = read_json(folder / REPORT)["training"]["seconds"]
    return LearnedModel(rollouts, method, starts.to(scaling.mean.device), horizon, seconds)


def read_dynamics(path: Path, info: DatasetInfo, config: EnsembleConfig) -> DynamicsEnsemble:
    """The trained ensemble in a file, on the CPU, without a prior; it speaks the environment's units."""
    weights = {name: value for name, value in read_tensors(path).items() if not name.startswith("prior.")}
    try:
        # The terminal head is one output more than means and log-variances.
        ends = weights[f"networks.biases.{config.model_layers}"].shape[-1] % 2 == 1
        dynamics = new_ensemble(info, config, ends)
        dynamics.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not fit its config.json or is damaged: {reason}") from None
    return dynamics.requires_grad_(False)
