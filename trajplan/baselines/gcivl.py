"""Goal-conditioned implicit value learning: V(s, g) by expectile regression, and a policy weighted by its advantage.

The value-only form of implicit Q-learning (Kostrikov, Nair and Levine 2022) for goals, as OGBench (Park et al. 2025)
defines it; optionally on n-step returns, by which values travel n times as far at an update (Park et al. 2025, "Horizon
reduction makes RL scalable"). With rewards of -1 until the goal, V(s, g) is -(1 - discount^d) / (1 - discount), d steps
from it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.settings import GoalConfig, check_positive, check_share
from trajplan.config import option, require
from trajplan.data.goal_shares import GoalShares
from trajplan.data.transitions import Batch
from trajplan.models.critics import TwinGoalValue, target_of
from trajplan.models.networks import Dimensions, adam, polyak_update
from trajplan.models.policies import make_policy


@dataclass(frozen=True, kw_only=True)
class GCIVLConfig(GoalConfig):
    """Settings of goal-conditioned implicit value learning; the defaults are OGBench's."""

    expectile: float = option(0.9, "how far V lies towards the best of what the data do next")
    alpha: float = option(10.0, "inverse temperature of the advantage weights")
    max_weight: float = option(100.0, "largest advantage weight")
    layer_norm: bool = option(True, "normalise the hidden layers of V")
    tau: float = option(5e-3, "share by which the target values follow at every update")
    value_current_goals: float = option(0.2, "share of V's goals that are the present itself")
    value_future_goals: float = option(0.5, "share that are a later state of the episode; the rest are any of the data")
    value_future: Literal["geometric", "uniform", "last"] = option(
        "geometric", "which later state: geometric in the discount, uniform or the last"
    )
    n_steps: int = option(1, "transitions between a state and the one that its value is learned from")
    policy: Literal["gaussian", "deterministic"] = option(
        "deterministic", "head for continuous actions (deterministic: squared error); Discrete ones are categorical"
    )
    actor_learning_rate: float = option(3e-4, "Adam's learning rate for the policy")
    value_learning_rate: float = option(3e-4, "Adam's learning rate for V")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.expectile < 1, "expectile", self.expectile, "lie between 0 and 1")
        check_positive(self, "alpha", "max_weight")
        check_share(self, "tau")
        require(self.n_steps >= 1, "n_steps", self.n_steps, "be at least 1")

    @property
    def value_goals(self) -> GoalShares:
        """The goals that V is of."""
        return GoalShares(self.value_current_goals, self.value_future_goals, self.value_future, self.discount)

    @property
    def lookahead(self) -> int:
        """Transitions that a batch's next observation lies ahead."""
        return self.n_steps


class GCIVL(nn.Module):
    """Goal-conditioned implicit value learning."""

    cosine = ()
    needs_goals = True

    def __init__(self, dimensions: Dimensions, config: GCIVLConfig) -> None:
        super().__init__()
        self.config = config
        self.policy = make_policy(config.policy, dimensions.with_goal, config.hidden)
        self.value = TwinGoalValue(dimensions, config.hidden, config.layer_norm)
        self.target = target_of(self.value)
        self.optimizers = {
            "actor": adam(self.policy.parameters(), config.actor_learning_rate),
            "value": adam(self.value.parameters(), config.value_learning_rate),
        }

    def value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Both V(s, g) on r + discount (1 - d) V_target(s', g), each its own, weighed by one advantage.

        The advantage, of which only the sign counts, is the smaller target minus the mean target value of s.
        """
        assert batch.goals is not None
        config, size = self.config, len(batch.goals)
        with torch.no_grad():
            states = torch.cat([batch.next_observations, batch.observations])
            next_values, before = self.target(states, batch.goals.repeat(2, 1)).split(size, -1)
            discount = config.discount if batch.steps is None else config.discount**batch.steps
            targets = batch.rewards + discount * torch.where(batch.terminations, 0.0, next_values)
            advantages = targets.amin(0) - before.mean(0)
            weights = torch.where(advantages < 0, 1 - config.expectile, config.expectile)
        values = self.value(batch.observations, batch.goals)
        loss = (weights * (targets - values).square()).mean(-1).sum()
        return loss, {"value/loss": loss.detach(), "value/mean": values.detach().mean()}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Log-likelihood of the data's actions weighted by exp(alpha A), A = V(s', g) - V(s, g), s' n_steps ahead."""
        assert batch.actor_goals is not None
        config, goals = self.config, batch.actor_goals
        with torch.no_grad():
            states = torch.cat([batch.next_observations, batch.observations])
            after, before = self.value(states, goals.repeat(2, 1)).mean(0).split(len(goals))
            weights = torch.exp(config.alpha * (after - before)).clamp(max=config.max_weight)
        log_prob = self.policy(torch.cat([batch.observations, goals], dim=-1)).log_prob(batch.actions)
        loss = -(weights * log_prob).mean()
        return loss, {"actor/loss": loss.detach(), "actor/weight_mean": weights.mean()}

    def update(self, batch: Batch) -> Metrics:
        """One step of both V and of the policy, then of the target values."""
        value_loss, value_metrics = self.value_loss(batch)
        actor_loss, actor_metrics = self.actor_loss(batch)
        step(value_loss + actor_loss, *self.optimizers.values())
        polyak_update(self.target, self.value, self.config.tau)
        return value_metrics | actor_metrics

    def act(self, observations: Tensor, goals: Tensor) -> Tensor:
        """The policy's mean, or its likeliest Discrete action, on the way to goals (B, G)."""
        return self.policy(torch.cat([observations, goals], dim=-1)).mode
