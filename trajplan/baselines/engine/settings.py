"""Settings of a run of the trainer, whatever the method."""

from dataclasses import dataclass
from typing import Literal

from trajplan.config import option, require
from trajplan.runs.trackers import tracker_names, trackers_option

# What may differ when a run is resumed: it changes neither the weights nor metrics.jsonl.
FREE_ON_RESUME = frozenset({"save_every", "trackers"})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, on what and with which records a method is trained; the defaults are the public comparisons'."""

    updates: int = option(1_000_000, "updates of the weights")
    batch_size: int = option(256, "transitions in one update, drawn uniformly with replacement")
    top_fraction: float = option(
        1.0, "share of the episodes to train on, those of the highest return (BC-10 %: 0.1)", was="best_episodes"
    )
    standardize: bool = option(True, "standardise observations by the dataset's mean and standard deviation")
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
    precision: Literal["no", "bf16", "auto"] = option(
        "no", "products between hidden layers in bfloat16 (auto: on a CPU that gains by it)"
    )
    trackers: str = trackers_option()

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "eval_episodes", "log_every", "save_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        for name in ("eval_every", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "be 0 or more")
        tracker_names(self.trackers)
        require(0 < self.top_fraction <= 1, "top_fraction", self.top_fraction, "lie in (0, 1]")
