"""Behaviour cloning: the likeliest actions of the data; BC-k %: of its best episodes (`top_fraction` of the run)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import NetworkConfig
from trajplan.config import option
from trajplan.data.transitions import Batch
from trajplan.models.networks import Dimensions, adam
from trajplan.models.policies import make_policy


@dataclass(frozen=True, kw_only=True)
class BCConfig(NetworkConfig):
    """Settings of behaviour cloning."""

    policy: Literal["gaussian", "squashed", "deterministic"] = option(
        "gaussian", "head for continuous actions (deterministic: squared error); Discrete ones have a categorical head"
    )
    learning_rate: float = option(3e-4, "Adam's learning rate")


class BC(nn.Module):
    """Behaviour cloning."""

    cosine = ()

    def __init__(self, dimensions: Dimensions, config: BCConfig) -> None:
        super().__init__()
        self.policy = make_policy(config.policy, dimensions, config.hidden)
        self.optimizers = {"actor": adam(self.policy.parameters(), config.learning_rate)}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood of the data's actions, or their squared error, summed over dimensions."""
        loss = -self.policy(batch.observations).log_prob(batch.actions).mean()
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Batch) -> Metrics:
        """One step of the policy."""
        loss, metrics = self.actor_loss(batch)
        step(loss, *self.optimizers.values())
        return metrics

    def act(self, observations: Tensor) -> Tensor:
        """The mean, or the likeliest Discrete action."""
        return self.policy(observations).mode
