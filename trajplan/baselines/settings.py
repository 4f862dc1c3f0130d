"""Settings of a run, whatever the method, and checks that the methods' own settings share."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from trajplan.config import option, require
from trajplan.runs.trackers import tracker_names, trackers_option

# What may differ when a run is resumed: it changes neither the weights nor metrics.jsonl.
FREE_ON_RESUME = frozenset({"save_every", "trackers"})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, on what and with which records a method is trained; the defaults are the public comparisons'."""

    updates: int = option(1_000_000, "updates of the weights")
    batch_size: int = option(256, "transitions in one update, drawn uniformly with replacement")
    best_episodes: float = option(1.0, "share of the episodes to train on, those of the highest return (BC-10 %: 0.1)")
    standardize: bool = option(True, "standardise observations by the dataset's mean and deviation")
    reward_transform: Literal["none", "return-range", "minus-one", "times-ten-minus-five"] = option(
        "none",
        "what training sees of rewards: times 1000 / (best - worst return), minus 1, or times 10 minus 5; reported "
        "returns never change",
    )
    eval_every: int = option(10_000, "updates between two evaluations in the dataset's environment (0: never)")
    eval_episodes: int = option(10, "episodes of each evaluation, with the same seeds every time")
    log_every: int = option(1_000, "updates between two lines of metrics.jsonl")
    save_every: int = option(10_000, "updates between two checkpoints")
    seed: int = option(0, "seed of weights, batches and sampled actions")
    trackers: str = trackers_option()

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "eval_episodes", "log_every", "save_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        for name in ("eval_every", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "be 0 or more")
        tracker_names(self.trackers)
        require(0 < self.best_episodes <= 1, "best_episodes", self.best_episodes, "lie in (0, 1]")


def check_positive(config: Any, *names: str) -> None:
    """Refuse fields that are not finite numbers above 0.

    Raises:
        ConfigError: naming the field.
    """
    for name in names:
        value = getattr(config, name)
        require(0 < value < math.inf, name, value, "be a finite number above 0")


def check_share(config: Any, *names: str) -> None:
    """Refuse fields that do not lie in (0, 1].

    Raises:
        ConfigError: naming the field.
    """
    for name in names:
        require(0 < getattr(config, name) <= 1, name, getattr(config, name), "lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Settings of every method: sizes of its networks."""

    hidden_layers: int = option(2, "hidden layers of every network")
    hidden_width: int = option(256, "their width")

    def __post_init__(self) -> None:
        for name in ("hidden_layers", "hidden_width"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        check_positive(self, *(name for name in vars(self) if name.endswith("learning_rate")))

    @property
    def hidden(self) -> tuple[int, ...]:
        """The widths of the hidden layers."""
        return (self.hidden_width,) * self.hidden_layers


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(NetworkConfig):
    """Settings of every method with a policy, a twin Q and its slow copy."""

    discount: float = option(0.99, "discount")
    target_rate: float = option(5e-3, "share by which the target critic follows at every update")
    actor_learning_rate: float = option(3e-4, "Adam's learning rate for the policy")
    critic_learning_rate: float = option(3e-4, "Adam's learning rate for Q")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "discount", "target_rate")

    @property
    def critic_hidden(self) -> tuple[int, ...]:
        """The widths of Q's hidden layers."""
        return self.hidden
