"""What every planner gives: the trajectories that it weighed, best first."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, repr=False)
class Plan:
    """The K trajectories of H steps that a planner kept for an environment, best first.

    Planners give the plans of a batch of environments as tensors (B, K, ...); a policy keeps those of one environment
    as numpy arrays (K, ...).

    Attributes:
        observations: (..., K, H, S) float32; the first is the observation planned from.
        actions: (..., K, H, A) float32.
        rewards: (..., K, H) predicted rewards, 0 after an end.
        returns: (..., K, H) predicted returns-to-go, 0 from an end on.
        scores: (..., K) what the planner ranks by, highest first; which that is, each planner says.
        alive: (..., K, H) False after a predicted end, or where a search over a tree looked no further.
        log_likelihood: (..., K) of the planned actions and observations up to the end, in nats.
    """

    observations: Any
    actions: Any
    rewards: Any
    returns: Any
    scores: Any
    alive: Any
    log_likelihood: Any

    def row(self, index: int) -> "Plan":
        """The plan of one environment of a batch, as numpy arrays."""
        return Plan(*(getattr(self, field.name)[index].cpu().numpy() for field in fields(self)))

    def __repr__(self) -> str:
        *batch, kept, horizon = self.rewards.shape
        kind = "trajectory" if kept == 1 else "trajectories"
        text = f"Plan: {kept} {kind} of {horizon} steps, the best first"
        if batch:
            return f"{text}, for {batch[0]} environments"
        first = ", ".join(f"{value:.3f}" for value in self.actions[0, 0].tolist())
        return (
            f"{text}\n"
            f"  best score      {self.scores[0]:.2f}, the last one's {self.scores[-1]:.2f}\n"
            f"  first action    [{first}]\n"
            f"  log-likelihood  {self.log_likelihood[0]:.2f} nats, of the best one's tokens"
        )
