"""Settings of a run, whatever the method, and checks that the methods' own settings share."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from trajplan.config import option, require

# The `model_type` of a baseline's config.json.
MODEL_TYPE = "trajplan-baseline"

# What may differ when a run is resumed: it changes neither the weights nor metrics.jsonl.
FREE_ON_RESUME = frozenset({"save_every"})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, on what and with which records a method is trained; the defaults are the public comparisons'."""

    updates: int = option(1_000_000, "updates of the weights")
    batch_size: int = option(256, "transitions in one update, drawn uniformly with replacement")
    best_episodes: float = option(1.0, "share of the episodes to train on, those of the highest return (BC-10 %: 0.1)")
    standardize: bool = option(True, "standardise observations by the dataset's mean and deviation")
    reward_transform: Literal["none", "return-range", "minus-one"] = option(
        "none",
        "what training sees of rewards: times 1000 / (best - worst return), or minus 1; reported returns never change",
    )
    eval_every: int = option(10_000, "updates between two evaluations in the dataset's environment (0: never)")
    eval_episodes: int = option(10, "episodes of each evaluation, with the same seeds every time")
    log_every: int = option(1_000, "updates between two lines of metrics.jsonl")
    save_every: int = option(10_000, "updates between two checkpoints")
    seed: int = option(0, "seed of weights, batches and sampled actions")

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "eval_episodes", "log_every", "save_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        for name in ("eval_every", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "be 0 or more")
        require(0 < self.best_episodes <= 1, "best_episodes", self.best_episodes, "lie in (0, 1]")


def check_network(config: Any) -> None:
    """Refuse sizes and learning rates that make no network: for the methods' settings.

    Raises:
        ConfigError: naming the field.
    """
    for name in ("hidden_layers", "hidden_width"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "be at least 1")
    for name in vars(config):
        if name.endswith("learning_rate"):
            check_positive(config, name)


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


def hidden_sizes(config: Any) -> tuple[int, ...]:
    """The widths of the hidden layers that a method's settings ask for."""
    return (config.hidden_width,) * config.hidden_layers
