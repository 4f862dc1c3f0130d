"""Goal-conditioned behaviour cloning: the data's actions, given a state that the episode came to later (hindsight)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import GoalConfig
from trajplan.config import option
from trajplan.data.transitions import Batch
from trajplan.models.networks import Dimensions, adam
from trajplan.models.policies import make_policy


@dataclass(frozen=True, kw_only=True)
class GCBCConfig(GoalConfig):
    """Settings of goal-conditioned behaviour cloning; the defaults are OGBench's (Park et al. 2025)."""

    policy: Literal["gaussian", "squashed", "deterministic"] = option(
        "deterministic", "head for continuous actions (deterministic: squared error); Discrete ones are categorical"
    )
    learning_rate: float = option(3e-4, "Adam's learning rate")


class GCBC(nn.Module):
    """Goal-conditioned behaviour cloning."""

    cosine = ()
    needs_goals = True

    def __init__(self, dimensions: Dimensions, config: GCBCConfig) -> None:
        super().__init__()
        self.policy = make_policy(config.policy, dimensions.with_goal, config.hidden)
        self.optimizers = {"actor": adam(self.policy.parameters(), config.learning_rate)}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood of the data's actions on the way to their goals."""
        assert batch.actor_goals is not None
        distribution = self.policy(torch.cat([batch.observations, batch.actor_goals], dim=-1))
        loss = -distribution.log_prob(batch.actions).mean()
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Batch) -> Metrics:
        """One step of the policy."""
        loss, metrics = self.actor_loss(batch)
        step(loss, *self.optimizers.values())
        return metrics

    def act(self, observations: Tensor, goals: Tensor) -> Tensor:
        """The mean, or the likeliest Discrete action, on the way to goals (B, G)."""
        return self.policy(torch.cat([observations, goals], dim=-1)).mode
