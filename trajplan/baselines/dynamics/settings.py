"""Settings of a learned dynamics model and of rollouts in it; a method whose settings are of this class gets a model.

They say nothing of the method that learns from the model: a method's own settings are these and its learner's.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trajplan.config import option, require
from trajplan.runs.trackers import tracker_names, trackers_option

if TYPE_CHECKING:
    # Not to load torch for a list of settings.
    from trajplan.models.dynamics import Uncertainty


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """How the dynamics ensemble is learned."""

    model_members: int = option(7, "networks of the dynamics ensemble")
    model_elites: int = option(5, "how many of them, those of the smallest held-out loss, are used")
    model_layers: int = option(4, "hidden layers of each")
    model_width: int = option(200, "their width")
    model_learning_rate: float = option(1e-3, "Adam's learning rate for the ensemble")
    model_batch_size: int = option(256, "transitions in one of the ensemble's updates, for each member its own")
    model_held_out: float = option(0.1, "share of the episodes that the ensemble is not trained on but measured by")
    model_patience: int = option(5, "the ensemble's training ends after so many epochs without a better held-out loss")
    model_max_epochs: int | None = option(None, "it ends after so many epochs in any case (none: no such limit)")

    def __post_init__(self) -> None:
        for name in ("model_elites", "model_layers", "model_width", "model_batch_size", "model_patience"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        members, epochs = self.model_members, self.model_max_epochs
        require(members >= self.model_elites, "model_members", members, "be at least model_elites")
        require(epochs is None or epochs >= 1, "model_max_epochs", epochs, "be at least 1 or none")
        require(0 < self.model_held_out < 1, "model_held_out", self.model_held_out, "lie between 0 and 1")
        rate = self.model_learning_rate
        require(0 < rate < math.inf, "model_learning_rate", rate, "be a finite number above 0")

    @property
    def model_hidden(self) -> tuple[int, ...]:
        """The widths of the ensemble's hidden layers."""
        return (self.model_width,) * self.model_layers


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(EnsembleConfig):
    """An ensemble that is learned by itself, for planners: `trajplan dynamics`."""

    prior: bool = option(True, "also learn what the planner mbop needs: cloned policies, and values of what they do")
    prior_layers: int = option(2, "hidden layers of each of these networks, as wide as the ensemble's")
    prior_steps: int = option(10, "steps whose rewards their values count")
    seed: int = option(0, "seed of weights, samples of the data and batches")
    trackers: str = trackers_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prior_layers", "prior_steps"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.seed >= 0, "seed", self.seed, "be 0 or more")
        tracker_names(self.trackers)

    @property
    def prior_hidden(self) -> tuple[int, ...]:
        """The widths of the hidden layers of the prior's networks."""
        return (self.model_width,) * self.prior_layers


@dataclass(frozen=True, kw_only=True)
class ModelBasedConfig(EnsembleConfig):
    """A method learns from a mix of the data and rollouts of a dynamics model, which is learned first."""

    real_ratio: float = option(
        0.05, "share of the dataset's own transitions in a batch; the rest is the model's", was="real_share"
    )
    rollout_length: int = option(5, "steps of a model rollout, which starts at an observation of the data")
    rollout_starts: int = option(50_000, "rollouts at a time")
    rollout_every: int = option(1000, "updates between two times of rolling out")
    rollout_keep: int = option(5, "how many of the newest times of rolling out are trained on")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rollout_length", "rollout_starts", "rollout_every", "rollout_keep"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(0 < self.real_ratio <= 1, "real_ratio", self.real_ratio, "lie in (0, 1]")

    @property
    def reward_penalty(self) -> "tuple[Uncertainty, float] | None":
        """The kind of uncertainty that rewards of the model are lowered by, and its weight; None: as predicted."""
        return None

    def real_rows(self, batch_size: int) -> int:
        """How many rows of a batch, its first ones, are the dataset's own: at least one."""
        return max(1, math.floor(self.real_ratio * batch_size + 0.5))
