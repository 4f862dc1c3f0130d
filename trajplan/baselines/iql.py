"""Implicit Q-learning (Kostrikov, Nair and Levine 2022): values by expectile regression, on the data's actions only."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import ActorCriticConfig, check_positive
from trajplan.config import option, require
from trajplan.data.transitions import Batch
from trajplan.models.critics import Value, make_critic, target_of
from trajplan.models.networks import Dimensions, adam, polyak_update
from trajplan.models.policies import make_policy


@dataclass(frozen=True, kw_only=True)
class IQLConfig(ActorCriticConfig):
    """Settings of implicit Q-learning; the defaults are the paper's for locomotion."""

    expectile: float = option(0.7, "how far V lies towards the best of the data's actions (antmaze: 0.9)")
    beta: float = option(3.0, "inverse temperature of the advantage weights (antmaze: 10)")
    max_weight: float = option(100.0, "largest advantage weight")
    policy: Literal["gaussian", "deterministic"] = option(
        "gaussian", "head for continuous actions; Discrete ones have a categorical head"
    )
    dropout: float = option(0.0, "share of the policy's hidden units that an update leaves out (Adroit: 0.1)")
    actor_learning_rate: float = option(3e-4, "Adam's learning rate for the policy, falling to 0 along a cosine")
    critic_learning_rate: float = option(3e-4, "Adam's learning rate for Q and V")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.expectile < 1, "expectile", self.expectile, "lie between 0 and 1")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "be 0 or more and below 1")
        check_positive(self, "beta", "max_weight")


class IQL(nn.Module):
    """Implicit Q-learning."""

    cosine = ("actor",)

    def __init__(self, dimensions: Dimensions, config: IQLConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = make_policy(config.policy, dimensions, config.hidden, config.dropout)
        self.critic = make_critic(dimensions, config.critic_hidden)
        self.target = target_of(self.critic)
        self.value = Value(dimensions, config.hidden)
        self.optimizers = {
            "actor": adam(self.policy.parameters(), config.actor_learning_rate),
            "critic": adam(self.critic.parameters(), config.critic_learning_rate),
            "value": adam(self.value.parameters(), config.critic_learning_rate),
        }

    def value_loss(self, target_q: Tensor, values: Tensor) -> tuple[Tensor, Metrics]:
        """Expectile regression of V(s) (B,) on min Q_target(s, a) (B,): equation 5."""
        loss = expectile_loss(target_q - values, self.config.expectile)
        return loss, {"value/loss": loss.detach(), "value/mean": values.detach().mean()}

    def critic_loss(self, batch: Batch, next_values: Tensor) -> tuple[Tensor, Metrics]:
        """Squared error of both Q(s, a) on r + discount (1 - d) V(s'), V(s') (B,): equation 6."""
        targets = batch.rewards + self.config.discount * torch.where(batch.terminations, 0.0, next_values)
        q = self.critic(batch.observations, batch.actions)
        loss = (q - targets).square().mean(-1).sum()
        return loss, {"critic/loss": loss.detach(), "critic/q_mean": q.detach().mean()}

    def actor_loss(self, batch: Batch, advantages: Tensor) -> tuple[Tensor, Metrics]:
        """Log-likelihood of the data's actions weighted by exp(beta A), A (B,): equation 7."""
        weights = torch.exp(self.config.beta * advantages).clamp(max=self.config.max_weight)
        loss = -(weights * self.policy(batch.observations).log_prob(batch.actions)).mean()
        return loss, {"actor/loss": loss.detach(), "actor/weight_mean": weights.mean()}

    def update(self, batch: Batch) -> Metrics:
        """One step of V, both Q and the policy, then of the target critic."""
        values = self.value(batch.observations)
        with torch.no_grad():
            target_q = self.target(batch.observations, batch.actions).amin(0)
            next_values = self.value(batch.next_observations)
            advantages = target_q - values
        value_loss, value_metrics = self.value_loss(target_q, values)
        critic_loss, critic_metrics = self.critic_loss(batch, next_values)
        actor_loss, actor_metrics = self.actor_loss(batch, advantages)
        step(value_loss + critic_loss + actor_loss, *self.optimizers.values())
        polyak_update(self.target, self.critic, self.config.tau)
        return value_metrics | critic_metrics | actor_metrics

    def act(self, observations: Tensor) -> Tensor:
        """The policy's mean, or the likeliest Discrete action."""
        return self.policy(observations).mode


def expectile_loss(differences: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1(u < 0)| u² over u = target - value: its minimum is the targets' expectile."""
    weights = torch.where(differences < 0, 1 - expectile, expectile)
    return (weights * differences.square()).mean()
