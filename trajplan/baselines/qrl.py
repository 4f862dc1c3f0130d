"""Quasimetric reinforcement learning (Wang et al. 2023): V(s, g) as minus a distance, and a policy weighted by it.

The distance is a quasimetric, so that only neighbours have to be learned from: of the data's transitions it must not be
longer than they took, and with that held all other pairs are pushed apart. What results is the shortest way, without
bootstrapping and so without waiting for values to travel.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import GoalConfig, check_positive
from trajplan.config import option, require
from trajplan.data.goals import GoalShares
from trajplan.data.transitions import Batch
from trajplan.models.networks import Dimensions, adam
from trajplan.models.policies import make_policy
from trajplan.models.quasimetric import Quasimetric


@dataclass(frozen=True, kw_only=True)
class QRLConfig(GoalConfig):
    """Settings of quasimetric reinforcement learning."""

    latents: int = option(64, "numbers that a state is encoded by; a multiple of 16, or fewer than that")
    frequencies: int = option(0, "octaves of sine and cosine features of each dimension, for states of few dimensions")
    offset: float = option(500.0, "steps from which on pairs are pushed apart no further")
    softness: float = option(0.01, "how sharply that ends, as the inverse of a number of steps")
    epsilon: float = option(0.05, "by how much a transition may seem longer than it was, as a share")
    pairs: int = option(96, "states and goals of a batch of which all pairs are pushed apart")
    n_steps: int = option(1, "transitions between two states that are that near or nearer")
    multiplier: float = option(1.0, "what the constraint weighs at first")
    alpha: float = option(10.0, "inverse temperature of the advantage weights")
    max_weight: float = option(100.0, "largest advantage weight")
    policy: Literal["gaussian", "deterministic"] = option(
        "deterministic", "head for continuous actions (deterministic: squared error); Discrete ones are categorical"
    )
    actor_learning_rate: float = option(3e-4, "Adam's learning rate for the policy")
    value_learning_rate: float = option(3e-4, "Adam's learning rate for the distance")
    multiplier_learning_rate: float = option(0.01, "Adam's learning rate for the constraint's weight")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latents", "pairs", "n_steps"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(
            self.latents < 16 or self.latents % 16 == 0, "latents", self.latents, "be below 16, or a multiple of it"
        )
        require(self.frequencies >= 0, "frequencies", self.frequencies, "be 0 or more")
        check_positive(self, "offset", "softness", "epsilon", "multiplier", "alpha", "max_weight")

    @property
    def value_goals(self) -> GoalShares:
        """Goals from anywhere: those that states are pushed away from."""
        return GoalShares(0.0, 0.0, "last")

    @property
    def lookahead(self) -> int:
        """Transitions that a batch's next observation lies ahead."""
        return self.n_steps

    @property
    def whole_goals(self) -> bool:
        """A distance is one between states."""
        return True


class QRL(nn.Module):
    """Quasimetric reinforcement learning."""

    cosine = ("value",)
    needs_goals = True

    def __init__(self, dimensions: Dimensions, config: QRLConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = make_policy(config.policy, dimensions.with_goal, config.hidden)
        self.distance = Quasimetric(
            dimensions.observation_dim, config.hidden, config.latents, config.frequencies, config.offset / 4
        )
        # softplus of this is the multiplier.
        self.log_multiplier = nn.Parameter(torch.tensor(config.multiplier).expm1().log())
        self.optimizers = {
            "actor": adam(self.policy.parameters(), config.actor_learning_rate),
            "value": adam(self.distance.parameters(), config.value_learning_rate),
            "multiplier": adam([self.log_multiplier], config.multiplier_learning_rate),
        }

    def value(self, observations: Tensor, goals: Tensor) -> Tensor:
        """V(s, g) = -d(s, g), what is earned at -1 a step: (B, S) and (B, S) -> (B,)."""
        return -self.distance(observations, goals)

    def value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The Lagrangian: push pairs apart, while transitions are no longer than they took (equation 9)."""
        assert batch.goals is not None
        config = self.config
        states = torch.cat([batch.observations, batch.next_observations, batch.goals])
        here, after, goals = self.distance.latents(states).chunk(3)
        took = 1 if batch.steps is None else batch.steps.to(here.dtype)
        excess = (self.distance.between(here, after) - took).relu() / config.n_steps
        violation = excess.square().mean() - config.epsilon**2
        apart = self.distance.between(here[: config.pairs, None], goals[None, : config.pairs])
        push = functional.softplus(config.offset - apart, beta=config.softness).mean() / config.offset
        multiplier = functional.softplus(self.log_multiplier)
        loss = push + multiplier.detach() * violation - multiplier * violation.detach()
        return loss, {
            "value/loss": push.detach(),
            "value/mean": -apart.detach().mean(),
            "value/excess": excess.detach().mean(),
            "value/multiplier": multiplier.detach(),
        }

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Log-likelihood of the data's actions weighted by exp(alpha A), A = (d(s, g) - d(s', g)) / n_steps."""
        assert batch.actor_goals is not None
        config, goals = self.config, batch.actor_goals
        with torch.no_grad():
            before, after = (self.distance(s, goals) for s in (batch.observations, batch.next_observations))
            weights = torch.exp(config.alpha * (before - after) / config.n_steps).clamp(max=config.max_weight)
        log_prob = self.policy(torch.cat([batch.observations, goals], dim=-1)).log_prob(batch.actions)
        loss = -(weights * log_prob).mean()
        return loss, {"actor/loss": loss.detach(), "actor/weight_mean": weights.mean()}

    def update(self, batch: Batch) -> Metrics:
        """One step of the distance, the constraint's weight and the policy."""
        value_loss, value_metrics = self.value_loss(batch)
        actor_loss, actor_metrics = self.actor_loss(batch)
        step(value_loss + actor_loss, *self.optimizers.values())
        return value_metrics | actor_metrics

    def act(self, observations: Tensor, goals: Tensor) -> Tensor:
        """The policy's mean, or its likeliest Discrete action, on the way to goals (B, G)."""
        return self.policy(torch.cat([observations, goals], dim=-1)).mode
