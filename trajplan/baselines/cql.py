"""Conservative Q-learning (Kumar et al. 2020): Q is held low where the data has no actions.

CQL(H), equation 4, on soft actor-critic for continuous actions and on double Q-learning for Discrete ones.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trajplan.baselines.engine.method import Metrics, step
from trajplan.baselines.sac import SAC, SACConfig
from trajplan.baselines.settings import check_positive
from trajplan.config import option, require
from trajplan.data.transitions import Batch
from trajplan.models.conservative import candidate_actions, soft_maximum
from trajplan.models.critics import DiscreteTwinQ, target_of
from trajplan.models.networks import Dimensions, adam, polyak_update, start_near_zero, start_orthogonal
from trajplan.models.policies import SquashedGaussian

# What double Q-learning, without a policy or candidates, has no use for.
CONTINUOUS_ONLY = (
    *("candidates", "target_actions", "entropy_in_target", "target_entropy"),
    *("actor_learning_rate", "temperature_learning_rate"),
)


@dataclass(frozen=True, kw_only=True)
class CQLConfig(SACConfig):
    """Settings of conservative Q-learning; the defaults are CORL's (Tarasov et al. 2022) for locomotion."""

    alpha: float = option(10.0, "weight of the penalty (0: none); with a target gap it starts there")
    raise_data: bool = option(True, "whether the penalty also raises Q of the data's actions")
    target_gap: float | None = option(None, "what alpha is adjusted to hold the penalty at; none: alpha stays")
    min_penalty: float | None = option(None, "the penalty of a transition counts as no less than this; none: as it is")
    penalty_temperature: float = option(1.0, "of the soft maximum that the penalty lowers")
    candidates: int = option(
        10, "continuous actions of each kind (uniform, policy at s, policy at s') in the soft maximum"
    )
    target_actions: int = option(1, "sampled continuous next actions of which the target takes the best")
    hidden_layers: int = option(3, "hidden layers of the policy, and of Q unless it has its own number")
    critic_layers: int | None = option(None, "hidden layers of Q; none: as many as the policy (antmaze: 5)")
    actor_learning_rate: float = option(3e-5, "Adam's learning rate for the policy")
    temperature_learning_rate: float = option(3e-5, "Adam's learning rate for the entropy's weight")
    entropy_in_target: bool = option(False, "whether Q counts the entropy of later steps as reward")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "penalty_temperature")
        require(0 <= self.alpha < math.inf, "alpha", self.alpha, "be 0 or more")
        adjusted = self.target_gap is not None
        require(self.alpha > 0 or not adjusted, "alpha", self.alpha, "be above 0 to be adjusted to a target gap")
        for name in ("target_gap", "min_penalty"):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), name, value, "be a finite number or none")
        for name in ("candidates", "target_actions"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        layers = self.critic_layers
        require(layers is None or layers >= 1, "critic_layers", layers, "be at least 1 or none")

    @property
    def critic_hidden(self) -> tuple[int, ...]:
        """The widths of Q's hidden layers."""
        return (self.hidden_width,) * (self.critic_layers or self.hidden_layers)


class Penalty(nn.Module):
    """alpha times the soft maximum of Q, minus Q of the data's actions where the settings say so."""

    def __init__(self, config: CQLConfig) -> None:
        super().__init__()
        self.config = config
        if config.target_gap is not None:
            self.log_alpha = nn.Parameter(torch.tensor(math.log(config.alpha)))

    def forward(self, maximum: Tensor, data_q: Tensor) -> tuple[Tensor, Metrics]:
        """Soft maxima and the data's Q, (2, B) each, to the loss of both critics, and of alpha (equation 30)."""
        config = self.config
        penalty = maximum - data_q if config.raise_data else maximum
        if config.min_penalty is not None:
            penalty = penalty.clamp(min=config.min_penalty)
        penalty = penalty.mean(-1)
        metrics = {"critic/penalty": penalty.detach().mean()}
        if config.target_gap is None:
            return config.alpha * penalty.sum(), metrics
        alpha = self.log_alpha.exp().clamp(max=1e6)
        # The critics lower the penalty, alpha rises while it is above the gap.
        dual = alpha * (config.target_gap - penalty.detach().mean())
        return alpha.detach() * penalty.sum() + dual, metrics | {"critic/alpha": alpha.detach()}


class CQL(SAC):
    """Conservative Q-learning for continuous actions: soft actor-critic with a penalty in the critics' loss."""

    config: CQLConfig

    def __init__(self, dimensions: Dimensions, config: CQLConfig) -> None:
        super().__init__(dimensions, config)
        assert isinstance(self.policy, SquashedGaussian)
        # Q near 0 and a narrow policy around 0, as in CORL.
        start_near_zero(self.policy.network)
        self.policy.shift_log_std(-1.0)
        start_orthogonal(self.critic.networks)
        self.target = target_of(self.critic)
        self.penalty = Penalty(config)
        learned = [*self.critic.parameters(), *self.penalty.parameters()]
        self.optimizers["critic"] = adam(learned, config.critic_learning_rate)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """As soft actor-critic's, or of the best of several sampled next actions: (B,)."""
        if self.config.target_actions == 1:
            return super().targets(batch)
        actions, log_prob = self.policy(batch.next_observations).sample(self.config.target_actions)
        values = self.target(batch.next_observations, actions).amin(0)
        if self.config.entropy_in_target:
            values = values - self.log_temperature.exp() * log_prob
        return batch.rewards + self.config.discount * torch.where(batch.terminations, 0.0, values.amax(0))

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Squared error of both Q(s, a) on the targets, and the penalty."""
        config = self.config
        if config.alpha == 0:
            return super().critic_loss(batch)
        assert isinstance(self.policy, SquashedGaussian)
        targets = self.targets(batch)
        actions, log_density = candidate_actions(
            self.policy, batch.observations, batch.next_observations, config.candidates
        )
        # One pass for the data's actions and all candidates.
        q = self.critic(batch.observations, torch.cat([batch.actions[None], actions]))
        data_q, maximum = q[:, 0], soft_maximum(q[:, 1:], log_density, config.penalty_temperature)
        error = (data_q - targets).square().mean(-1).sum()
        penalty, metrics = self.penalty(maximum, data_q)
        return error + penalty, {"critic/loss": error.detach(), "critic/q_mean": data_q.detach().mean()} | metrics


class DiscreteCQL(nn.Module):
    """Conservative Q-learning for Discrete actions: double Q-learning with the exact penalty."""

    cosine = ()

    def __init__(self, dimensions: Dimensions, config: CQLConfig) -> None:
        super().__init__()
        for name in CONTINUOUS_ONLY:
            default = getattr(CQLConfig, name)
            require(getattr(config, name) == default, name, getattr(config, name), "be left out for Discrete actions")
        self.config = config
        self.critic = DiscreteTwinQ(dimensions, config.critic_hidden)
        start_orthogonal(self.critic.networks)
        self.target = target_of(self.critic)
        self.penalty = Penalty(config)
        learned = [*self.critic.parameters(), *self.penalty.parameters()]
        self.optimizers = {"critic": adam(learned, config.critic_learning_rate)}

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """r + discount (1 - d) min Q_target(s', a'), a' the best action by min Q (van Hasselt et al. 2016): (B,)."""
        values = self.target(batch.next_observations, self.act(batch.next_observations)).amin(0)
        return batch.rewards + self.config.discount * torch.where(batch.terminations, 0.0, values)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Squared error of both Q(s, a) on the targets, and the penalty with the sum over all actions."""
        targets = self.targets(batch)
        values = self.critic.values(batch.observations)
        data_q = values.gather(-1, batch.actions.long().expand(2, -1, -1)).squeeze(-1)
        temperature = self.config.penalty_temperature
        error = (data_q - targets).square().mean(-1).sum()
        penalty, metrics = self.penalty(temperature * torch.logsumexp(values / temperature, dim=-1), data_q)
        return error + penalty, {"critic/loss": error.detach(), "critic/q_mean": data_q.detach().mean()} | metrics

    def update(self, batch: Batch) -> Metrics:
        """One step of both Q, then of the target critic."""
        loss, metrics = self.critic_loss(batch)
        step(loss, self.optimizers["critic"])
        polyak_update(self.target, self.critic, self.config.tau)
        return metrics

    def act(self, observations: Tensor) -> Tensor:
        """The action of the highest min Q: (B, S) -> (B, 1)."""
        return self.critic.values(observations).amin(0).argmax(-1, keepdim=True).float()
