"""AWAC (Nair et al. 2020): an actor-critic whose policy stays near the data by advantage-weighted likelihood."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import ActorCriticConfig, check_positive
from trajplan.config import option
from trajplan.data.transitions import Batch
from trajplan.models.critics import make_critic, target_of, value_and_entropy
from trajplan.models.networks import Dimensions, adam, polyak_update
from trajplan.models.policies import make_policy


@dataclass(frozen=True, kw_only=True)
class AWACConfig(ActorCriticConfig):
    """Settings of AWAC; the defaults are those of CORL (Tarasov et al. 2022)."""

    temperature: float = option(1 / 3, "lambda: advantages are divided by it before the exponential")
    max_weight: float = option(100.0, "largest advantage weight")
    policy: Literal["gaussian", "squashed"] = option(
        "gaussian", "head for continuous actions; Discrete ones have a categorical head"
    )
    hidden_layers: int = option(3, "hidden layers of every network")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "temperature", "max_weight")


class AWAC(nn.Module):
    """Advantage-weighted actor-critic."""

    cosine = ()

    def __init__(self, dimensions: Dimensions, config: AWACConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = make_policy(config.policy, dimensions, config.hidden)
        self.critic = make_critic(dimensions, config.critic_hidden)
        self.target = target_of(self.critic)
        self.optimizers = {
            "actor": adam(self.policy.parameters(), config.actor_learning_rate),
            "critic": adam(self.critic.parameters(), config.critic_learning_rate),
        }

    def critic_loss(self, batch: Batch, q: Tensor) -> tuple[Tensor, Metrics]:
        """Squared error of both Q(s, a) (2, B) on r + discount (1 - d) Q_target(s', a' ~ pi)."""
        with torch.no_grad():
            next_q, _ = value_and_entropy(self.target, batch.next_observations, self.policy(batch.next_observations))
            targets = batch.rewards + self.config.discount * torch.where(batch.terminations, 0.0, next_q)
        loss = (q - targets).square().mean(-1).sum()
        return loss, {"critic/loss": loss.detach(), "critic/q_mean": q.detach().mean()}

    def actor_loss(self, batch: Batch, q: Tensor) -> tuple[Tensor, Metrics]:
        """Log-likelihood of the data's actions weighted by exp(A / lambda), A = Q(s, a) (B,) - Q(s, a ~ pi)."""
        distribution = self.policy(batch.observations)
        with torch.no_grad():
            advantages = q - value_and_entropy(self.critic, batch.observations, distribution)[0]
            weights = torch.exp(advantages / self.config.temperature).clamp(max=self.config.max_weight)
        loss = -(weights * distribution.log_prob(batch.actions)).mean()
        metrics = {"actor/advantage_mean": advantages.mean(), "actor/weight_mean": weights.mean()}
        return loss, {"actor/loss": loss.detach()} | metrics

    def update(self, batch: Batch) -> Metrics:
        """One step of both Q and of the policy, from one pass of Q(s, a), then of the target critic."""
        q = self.critic(batch.observations, batch.actions)
        critic_loss, critic_metrics = self.critic_loss(batch, q)
        actor_loss, actor_metrics = self.actor_loss(batch, q.detach().amin(0))
        step(critic_loss + actor_loss, *self.optimizers.values())
        polyak_update(self.target, self.critic, self.config.tau)
        return critic_metrics | actor_metrics

    def act(self, observations: Tensor) -> Tensor:
        """The policy's mean, or the likeliest Discrete action."""
        return self.policy(observations).mode
