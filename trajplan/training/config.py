"""Settings of pretraining."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from trajplan.config import changes, option, require
from trajplan.runs.trackers import tracker_names, trackers_option

# What may differ when a run is resumed: these change neither the weights of an update nor its line of metrics.jsonl.
FREE_ON_RESUME = frozenset({"patience", "save_every", "trackers"})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Pretraining of a Trajectory Transformer; the defaults are the released ones but for the learning rate's schedule.

    Source: Janner, Li, Levine 2021; docs/training.md tells where its settings differ by dataset, and ours from them.
    """

    n_layer: int = option(4, "transformer blocks", group="model")
    n_head: int = option(4, "attention heads", group="model")
    n_embd: int = option(128, "width; a multiple of the number of heads", group="model")
    embd_pdrop: float = option(0.1, "dropout on the embeddings", group="model")
    attn_pdrop: float = option(0.1, "dropout on the attention weights", group="model")
    resid_pdrop: float = option(0.1, "dropout on the residual branches", group="model")
    tokenizer: Literal["quantile", "uniform"] = option(
        "quantile", "bins of equal mass or of equal width", group="tokens"
    )
    bins: int = option(100, "bins of every dimension", group="tokens")
    window: int = option(10, "transitions in a training sequence", group="tokens")
    discount: float = option(0.99, "discount of the return-to-go", group="tokens")
    termination_penalty: float | None = option(
        -100.0, "reward that replaces the recorded one at a real terminal (none: as recorded)", group="tokens"
    )
    goal: str | None = option(
        None,
        "columns of a later observation that stand before the window as its goal: all that goals of the data fix, or "
        "numbers such as 0,1 (none: no goal)",
        group="tokens",
    )
    goal_draw: Literal["geometric", "uniform", "last"] = option(
        "geometric",
        "which later observation of the episode is the goal: geometric, uniform or the last",
        group="tokens",
    )
    goal_discount: float = option(
        0.99, "a geometric goal lies n steps after the window's start with chance (1 - d) d^(n - 1)", group="tokens"
    )
    observation_weight: float = option(1.0, "weight of the observation tokens in the loss", group="loss")
    action_weight: float = option(5.0, "weight of the action tokens in the loss", group="loss")
    reward_weight: float = option(1.0, "weight of the reward tokens in the loss", group="loss")
    return_weight: float = option(1.0, "weight of the return-to-go tokens in the loss", group="loss")
    batch_size: int = option(
        256,
        "windows in one update, over all processes and accumulation steps together; never rescaled",
        group="optimiser",
    )
    accumulation: int = option(
        1, "parts, computed one after another, that each process's share of a batch is split into", group="optimiser"
    )
    epochs: float = option(
        50.0, "passes over the training windows: updates = epochs x windows / batch size", group="optimiser"
    )
    updates: int | None = option(
        None, "updates of the weights, in place of epochs (none: from epochs)", group="optimiser"
    )
    learning_rate: float = option(6e-4, "peak learning rate; it does not follow the batch size", group="optimiser")
    warmup_updates: int = option(100, "updates of linear warm-up, at most a tenth of the run", group="optimiser")
    final_learning_rate: float = option(0.1, "share of the peak at which the cosine decay ends", group="optimiser")
    beta1: float = option(0.9, "AdamW's decay of the first moment", group="optimiser")
    beta2: float = option(0.95, "AdamW's decay of the second moment", group="optimiser")
    weight_decay: float = option(0.1, "AdamW's weight decay, on the weight matrices only", group="optimiser")
    grad_clip: float = option(1.0, "largest norm of the gradient", group="optimiser")
    held_out: float = option(
        0.05, "share of the episodes kept out of training to measure the loss on (0: none)", group="run"
    )
    eval_every: int = option(500, "updates between two measurements of the held-out loss", group="run")
    eval_windows: int = option(2048, "held-out windows measured each time, evenly spaced", group="run")
    patience: int | None = option(
        None,
        "measurements of the held-out loss without a better one after which the run stops (none: at its end)",
        group="run",
    )
    log_every: int = option(10, "updates between two lines of metrics.jsonl", group="run")
    save_every: int = option(500, "updates between two checkpoints", group="run")
    precision: Literal["auto", "no", "bf16"] = option(
        "auto", "mixed precision (auto: bf16 on a GPU and on a CPU that multiplies in it, else none)", group="run"
    )
    attention: Literal["auto", "sdpa", "causal_blocks", "eager", "flash_attention_2"] = option(
        "auto",
        "how attention is computed (auto: causal_blocks on a CPU in bf16 or with dropout, else torch's own, sdpa)",
        group="run",
    )
    gradient_checkpointing: bool = option(
        False, "recompute activations in the backward pass to save memory", group="run"
    )
    compile: bool = option(False, "compile the model with torch.compile", group="run")
    seed: int = option(0, "seed of weights, dropout, batch order and held-out episodes", group="run")
    trackers: str = trackers_option("run")

    def __post_init__(self) -> None:
        positive = ("n_layer", "n_head", "n_embd", "batch_size", "accumulation", "eval_every", "eval_windows")
        for name in (*positive, "log_every", "save_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.n_embd % self.n_head == 0, "n_embd", self.n_embd, f"be a multiple of n_head, {self.n_head}")
        for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop", "held_out", "beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "lie in [0, 1)")
        for name in ("learning_rate", "grad_clip", "epochs"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "be a finite number above 0")
        for name in ("observation_weight", "action_weight", "reward_weight", "return_weight"):
            require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "be a finite number, 0 or above")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "be a finite number, 0 or above")
        require(self.bins >= 2, "bins", self.bins, "be at least 2")
        require(self.window >= 2, "window", self.window, "be at least 2 transitions")
        require(0 < self.discount <= 1, "discount", self.discount, "lie in (0, 1]")
        require(0 <= self.goal_discount < 1, "goal_discount", self.goal_discount, "lie in [0, 1)")
        require(0 <= self.final_learning_rate <= 1, "final_learning_rate", self.final_learning_rate, "lie in [0, 1]")
        require(self.warmup_updates >= 0, "warmup_updates", self.warmup_updates, "be 0 or more")
        require(self.updates is None or self.updates >= 1, "updates", self.updates, "be at least 1, or none")
        require(self.seed >= 0, "seed", self.seed, "be 0 or more")
        penalty = self.termination_penalty
        require(penalty is None or math.isfinite(penalty), "termination_penalty", penalty, "be finite, or none")
        patience = self.patience
        require(patience is None or patience >= 1, "patience", patience, "be at least 1, or none")
        require(patience is None or self.held_out > 0, "patience", patience, "be none where held_out is 0")
        tracker_names(self.trackers)

    def resolved(self, *, windows: int, bf16: bool, cpu: bool) -> "TrainConfig":
        """The same settings with the open ones settled: `updates` from `epochs`, the others from the device.

        Args:
            windows: training windows, one for every transition of the training episodes.
            bf16: whether the run's device gains by computing in bf16.
            cpu: whether the run is on a CPU.
        """
        updates = self.updates or max(1, math.ceil(self.epochs * windows / self.batch_size))
        precision = self.precision if self.precision != "auto" else ("bf16" if bf16 else "no")
        # Torch's own is slow on a CPU backwards in bf16 and with dropout; in float32 without, the two are alike.
        blocks = cpu and (precision == "bf16" or self.attn_pdrop > 0)
        attention = self.attention if self.attention != "auto" else ("causal_blocks" if blocks else "sdpa")
        return replace(self, updates=updates, precision=precision, attention=attention)


def differences(now: TrainConfig, before: TrainConfig) -> list[str]:
    """What a resumed run would change against the run it continues, as phrases `name is X and was Y`."""
    return changes(now, before, FREE_ON_RESUME)
