"""Soft actor-critic (Haarnoja et al. 2018), unchanged, on a fixed dataset; for Discrete actions Christodoulou's (2019).

Nothing keeps the policy near the data: its Q is asked about actions that the data says nothing of, and errors there
are never corrected. It shows why the other methods exist, and it is the learner inside CQL and MOPO.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import ActorCriticConfig
from trajplan.config import option, require
from trajplan.data.transitions import Batch
from trajplan.models.critics import make_critic, target_of, value_and_entropy
from trajplan.models.networks import Dimensions, adam, polyak_update
from trajplan.models.policies import make_policy


@dataclass(frozen=True, kw_only=True)
class SACConfig(ActorCriticConfig):
    """Settings of soft actor-critic; the defaults are the paper's."""

    temperature_learning_rate: float = option(3e-4, "Adam's learning rate for the entropy's weight")
    target_entropy: float | None = option(
        None, "entropy that the weight aims at; none: minus the action dimensions, 0.98 log(n) for n Discrete actions"
    )
    entropy_in_target: bool = option(True, "whether Q counts the entropy of later steps as reward")

    def __post_init__(self) -> None:
        super().__post_init__()
        target = self.target_entropy
        require(target is None or math.isfinite(target), "target_entropy", target, "be a finite number or none")


class SAC(nn.Module):
    """Soft actor-critic."""

    cosine: tuple[str, ...] = ()

    def __init__(self, dimensions: Dimensions, config: SACConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = make_policy("squashed", dimensions, config.hidden)
        self.critic = make_critic(dimensions, config.critic_hidden)
        self.target = target_of(self.critic)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.target_entropy = target_entropy(dimensions) if config.target_entropy is None else config.target_entropy
        self.optimizers = {
            "actor": adam(self.policy.parameters(), config.actor_learning_rate),
            "critic": adam(self.critic.parameters(), config.critic_learning_rate),
            "temperature": adam([self.log_temperature], config.temperature_learning_rate),
        }

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """r + discount (1 - d) (min Q_target(s', a') + temperature * entropy), a' ~ pi: (B,), equation 3."""
        values, entropy = value_and_entropy(self.target, batch.next_observations, self.policy(batch.next_observations))
        if self.config.entropy_in_target:
            values = values + self.log_temperature.exp() * entropy
        return batch.rewards + self.config.discount * torch.where(batch.terminations, 0.0, values)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Squared error of both Q(s, a) on the targets: equation 5, without its half."""
        targets = self.targets(batch)
        q = self.critic(batch.observations, batch.actions)
        loss = (q - targets).square().mean(-1).sum()
        return loss, {"critic/loss": loss.detach(), "critic/q_mean": q.detach().mean()}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Minus Q and entropy of the policy (equation 9), and the loss of the entropy's weight (equation 18)."""
        values, entropy = value_and_entropy(self.critic, batch.observations, self.policy(batch.observations))
        temperature = self.log_temperature.exp().detach()
        actor = -(values + temperature * entropy).mean()
        # In the weight's logarithm, so that it can fall by orders of magnitude and never below 0.
        weight = self.log_temperature * (entropy.detach().mean() - self.target_entropy)
        metrics = {"actor/loss": actor.detach(), "actor/entropy": entropy.detach().mean(), "temperature": temperature}
        return actor + weight, metrics

    def update(self, batch: Batch) -> Metrics:
        """One step of both Q, then of the policy on them and of the entropy's weight, then of the target critic."""
        loss, critic_metrics = self.critic_loss(batch)
        step(loss, self.optimizers["critic"])
        loss, actor_metrics = self.actor_loss(batch)
        step(loss, self.optimizers["actor"], self.optimizers["temperature"])
        polyak_update(self.target, self.critic, self.config.tau)
        return critic_metrics | actor_metrics

    def act(self, observations: Tensor) -> Tensor:
        """tanh of the mean, or the likeliest Discrete action."""
        return self.policy(observations).mode


def target_entropy(dimensions: Dimensions) -> float:
    """The entropy that a policy is held to by default, in nats."""
    if dimensions.num_actions is None:
        return -float(dimensions.action_dim)
    return 0.98 * math.log(dimensions.num_actions)
