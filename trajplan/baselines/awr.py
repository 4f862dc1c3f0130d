"""AWR (Peng et al. 2019): the data's actions, each as likely as its return was above what its state promised.

AWAC's policy loss with a Monte Carlo advantage. Nothing is asked about actions that are not in the data, and nothing
is stitched together from several episodes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import NetworkConfig, check_positive, check_share
from trajplan.config import option
from trajplan.data.transitions import Batch
from trajplan.models.critics import Value
from trajplan.models.networks import Dimensions, adam
from trajplan.models.policies import make_policy


@dataclass(frozen=True, kw_only=True)
class AWRConfig(NetworkConfig):
    """Settings of advantage-weighted regression; temperature and largest weight are those of the authors' code."""

    temperature: float = option(1.0, "beta: advantages are divided by it before the exponential")
    max_weight: float = option(20.0, "largest advantage weight")
    standardize_advantages: bool = option(True, "standardise the advantages of a batch, as the authors' code does")
    policy: Literal["gaussian", "squashed"] = option(
        "gaussian", "head for continuous actions; Discrete ones have a categorical head"
    )
    discount: float = option(0.99, "discount")
    actor_learning_rate: float = option(3e-4, "Adam's learning rate for the policy")
    critic_learning_rate: float = option(3e-4, "Adam's learning rate for V")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "temperature", "max_weight")
        check_share(self, "discount")


class AWR(nn.Module):
    """Advantage-weighted regression; its batches come with returns."""

    cosine = ()

    def __init__(self, dimensions: Dimensions, config: AWRConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = make_policy(config.policy, dimensions, config.hidden)
        self.value = Value(dimensions, config.hidden)
        self.optimizers = {
            "actor": adam(self.policy.parameters(), config.actor_learning_rate),
            "value": adam(self.value.parameters(), config.critic_learning_rate),
        }

    @torch.no_grad()
    def returns(self, batch: Batch) -> Tensor:
        """What the data earned from each transition on, (B,); V stands for what a time limit cut off."""
        assert batch.returns is not None
        assert batch.last_weights is not None
        assert batch.last_observations is not None
        return batch.returns + batch.last_weights * self.value(batch.last_observations)

    def value_loss(self, returns: Tensor, values: Tensor) -> tuple[Tensor, Metrics]:
        """Squared error of V(s) (B,) on the returns (B,): algorithm 1, line 5."""
        loss = (returns - values).square().mean()
        return loss, {"value/loss": loss.detach(), "value/mean": values.detach().mean()}

    def actor_loss(self, batch: Batch, advantages: Tensor) -> tuple[Tensor, Metrics]:
        """Log-likelihood of the data's actions weighted by exp(A / beta), A (B,) = R - V(s): algorithm 1, line 6."""
        if self.config.standardize_advantages:
            std, mean = torch.std_mean(advantages, correction=0)
            advantages = (advantages - mean) / (std + 1e-5)
        weights = torch.exp(advantages / self.config.temperature).clamp(max=self.config.max_weight)
        loss = -(weights * self.policy(batch.observations).log_prob(batch.actions)).mean()
        return loss, {"actor/loss": loss.detach(), "actor/weight_mean": weights.mean()}

    def update(self, batch: Batch) -> Metrics:
        """One step of V, and of the policy on what V was before."""
        returns = self.returns(batch)
        values = self.value(batch.observations)
        value_loss, value_metrics = self.value_loss(returns, values)
        actor_loss, actor_metrics = self.actor_loss(batch, returns - values.detach())
        step(value_loss + actor_loss, *self.optimizers.values())
        return value_metrics | actor_metrics

    def act(self, observations: Tensor) -> Tensor:
        """The policy's mean, or the likeliest Discrete action."""
        return self.policy(observations).mode
