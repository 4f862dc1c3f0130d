"""What planners on a dynamics ensemble share: sequences of actions, what the ensemble makes of them, and their noise.

Actions are searched for in [-1, 1], whatever the Box. A sequence's score is what it is predicted to earn, each reward
lowered by how uncertain the ensemble is (Yu et al. 2020), and a critic's value of where it ends:

    sum_t gamma^t (r_t - lambda u(s_t, a_t)) + gamma^H V(s_H)

Predicted states are the mean of the elites' means, without noise, and end by the environment's rule.

Shapes: B environments, N sequences of H steps, S observation_dim, A action_dim, G goal_dim.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError
from trajplan.models.critic import Critic
from trajplan.models.dynamics import Step, Uncertainty
from trajplan.models.scaling import Scaling
from trajplan.planners.plan import Plan


class Dynamics(Protocol):
    """What is asked of an ensemble, such as `trajplan.models.dynamics.DynamicsEnsemble`."""

    elites: Tensor

    def expected(
        self,
        observations: Tensor,
        actions: Tensor,
        uncertainty: Uncertainty | None = None,
        *,
        followed: Tensor | None = None,
        likelihood: bool = False,
    ) -> Step:
        """See `DynamicsEnsemble.expected`."""
        ...


@dataclass(frozen=True, kw_only=True)
class ShootingConfig:
    """Settings of every planner on a dynamics ensemble."""

    context: ClassVar[int] = 0

    horizon: int = option(15, "steps to plan ahead")
    discount: float = option(0.99, "discount of predicted rewards")
    penalty_weight: float = option(1.0, "lambda: how much of the ensemble's uncertainty is taken off a reward")
    penalty: Literal["max-deviation", "disagreement"] = option(
        "max-deviation",
        "the uncertainty: the largest norm of a member's standard deviations, or of its mean's distance from all means",
    )
    critic: str | None = option(None, "folder of a trained baseline whose value is that of a plan's end (none: 0)")
    warm_start: bool = option(True, "begin from what the last plan still holds")
    replan_every: int = option(1, "steps acted from one plan before the next is made")

    def __post_init__(self) -> None:
        for name in ("horizon", "replan_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(0 < self.discount <= 1, "discount", self.discount, "be above 0 and at most 1")
        require(0 <= self.penalty_weight < math.inf, "penalty_weight", self.penalty_weight, "be 0 or more")
        require(
            self.replan_every <= self.horizon, "replan_every", self.replan_every, f"be at most {self.horizon} steps"
        )


class Imagination:
    """What an ensemble makes of sequences of actions.

    Args:
        dynamics: the ensemble, or a stand-in for it, on the device where plans are made.
        info: the dataset it learned from.
        config: settings of the planner.
        critic: gives the value of a sequence's end; None: it has none.
    """

    def __init__(self, dynamics: Dynamics, info: DatasetInfo, config: ShootingConfig, critic: Critic | None) -> None:
        if info.is_discrete:
            raise ConfigError(
                f"Dataset {info.id!r} has Discrete actions, and {type(config).__name__} is of a planner that searches "
                "for continuous ones."
            )
        self.dynamics, self.config, self.critic = dynamics, config, critic
        self.device = dynamics.elites.device
        self.scaling = Scaling.of(info).to(self.device)
        self.action_dim = info.action_dim

    def scores(self, observations: Tensor, actions: Tensor, goals: Tensor | None) -> Tensor:
        """Scores (B, N) of sequences (B, N, H, A) in [-1, 1] from observations (B, S), for goals (B, G) or none."""
        return self._followed(observations, actions, goals)[0]

    def plan(self, observations: Tensor, actions: Tensor, goals: Tensor | None, scores: Tensor | None = None) -> Plan:
        """All that is predicted of sequences, in tensors (B, N, ...), in the order in which they are given.

        Rewards are without penalty; a return-to-go is the discounted sum of the later ones with the critic's value. The
        log-likelihood is that of the predicted steps among the elites, so that a plan on which they differ has less.

        Args:
            observations, actions, goals: as for `scores`.
            scores: (B, N) that the planner ranks by; None: those of `scores`.
        """
        found, steps, value = self._followed(observations, actions, goals, record=True)
        parts = {name: torch.stack([step[name] for step in steps], 2) for name in steps[0]}
        returns, after = torch.zeros_like(parts["rewards"]), value
        for step in reversed(range(len(steps))):
            returns[:, :, step] = after
            after = parts["rewards"][:, :, step] + self.config.discount * after
        return Plan(
            observations=parts["observations"],
            actions=self.scaling.environment_actions(actions),
            rewards=parts["rewards"],
            returns=returns,
            scores=found if scores is None else scores,
            alive=parts["alive"],
            log_likelihood=parts["log_likelihood"].sum(-1),
        )

    def end_values(self, states: Tensor, goals: Tensor | None) -> Tensor:
        """The critic's values (B, N) of states (B, N, S), or 0 without one."""
        if self.critic is None:
            return states.new_zeros(states.shape[:2])
        if self.critic.needs_goals and goals is None:
            raise ConfigError("The critic values states by a goal, and the environment gives none.")
        aim = None if goals is None else goals.to(self.device).repeat_interleave(states.shape[1], 0)
        return self.critic.values(states.flatten(0, 1), aim).view(states.shape[:2])

    def _followed(
        self, observations: Tensor, actions: Tensor, goals: Tensor | None, record: bool = False
    ) -> tuple[Tensor, list[dict[str, Tensor]], Tensor]:
        """Scores (B, N), what there is to record of every step, and the values of the ends (B, N)."""
        config, (B, N, H, _) = self.config, actions.shape
        kind: Uncertainty | None = config.penalty if config.penalty_weight else None
        taken = self.scaling.environment_actions(actions)
        states = observations.to(self.device)[:, None].expand(B, N, -1)
        alive = torch.ones(B, N, dtype=torch.bool, device=self.device)
        scores = torch.zeros(B, N, device=self.device)
        steps = []
        for number in range(H):
            here = taken[:, :, number].flatten(0, 1)
            step = self.dynamics.expected(states.flatten(0, 1), here, kind, likelihood=record)
            rewards = step.rewards.view(B, N) * alive
            scores += config.discount**number * rewards
            if step.uncertainty is not None:
                scores -= config.discount**number * config.penalty_weight * step.uncertainty.view(B, N) * alive
            if record:
                assert step.log_likelihood is not None
                density = step.log_likelihood.view(B, N) * alive
                steps.append({"observations": states, "rewards": rewards, "alive": alive, "log_likelihood": density})
            states = step.next_observations.view(B, N, -1)
            alive = alive & ~step.terminations.view(B, N)
        value = self.end_values(states, goals) * alive
        return scores + config.discount**H * value, steps, value


def normal_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal noise (B, *shape), each environment's from its own generator."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)


def coloured(noise: Tensor, exponent: float) -> Tensor:
    """White noise (..., H, A) as noise whose power falls with the frequency f as f^-exponent, of the same variance.

    Sequences of actions that go one way for some steps explore further than white ones (Pinneri et al. 2020, section
    3.1). The constant part has the power of the lowest frequency; 0 leaves the noise as it is.
    """
    steps = noise.shape[-2]
    if exponent == 0 or steps == 1:
        return noise
    frequencies = torch.fft.fftfreq(steps, device=noise.device).abs().clamp(min=1 / steps)
    gain = frequencies ** (-exponent / 2)
    gain = gain / gain.square().mean().sqrt()
    spectrum = torch.fft.rfft(noise, dim=-2) * gain[: steps // 2 + 1, None]
    return torch.fft.irfft(spectrum, n=steps, dim=-2)


def what_is_left(
    previous: Sequence[Plan | None] | None, batch: int, scaling: Scaling, count: int, config: ShootingConfig
) -> list[Tensor | None]:
    """The first sequences (K, H, A) in [-1, 1] of each environment's last plan, moved to the present.

    Args:
        previous: as `Planner.plan` gets it; None: there are no plans yet.
        batch: B.
        scaling: of the actions.
        count: K at most.
        config: of the planner: `replan_every` steps are gone, and as many times the last action is repeated.
    """
    left: list[Tensor | None] = []
    for plan in previous or [None] * batch:
        if plan is None:
            left.append(None)
            continue
        actions = scaling.actions(torch.as_tensor(plan.actions[:count]).to(scaling.mean.device))
        rest = actions[:, config.replan_every :]
        left.append(torch.cat([rest, actions[:, -1:].expand(-1, config.replan_every, -1)], 1))
    return left


def first_means(left: Sequence[Tensor | None], horizon: int, action_dim: int, device: torch.device) -> Tensor:
    """What a search begins around, (B, H, A): the best sequence that is left, or the middle of the Box."""
    middle = torch.zeros(horizon, action_dim, device=device)
    return torch.stack([middle if sequences is None else sequences[0] for sequences in left])


def weighted_mean(actions: Tensor, scores: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The mean (B, H, A) of sequences (B, N, H, A) by weights exp(score / temperature), and log-weights (B, N).

    The temperature is in standard deviations of an environment's scores, so that one suits rewards of any scale. The
    weights sum to 1.
    """
    spread = scores.std(1, correction=0, keepdim=True).clamp(min=1e-8)
    weights = ((scores - scores.amax(1, keepdim=True)) / (temperature * spread)).log_softmax(1)
    return torch.einsum("bn,bnha->bha", weights.exp(), actions), weights


def best_first(values: Tensor, count: int, *others: Tensor) -> tuple[Tensor, ...]:
    """The `count` largest of values (B, N) in their order, and the same ones of others (B, N, ...)."""
    order = values.argsort(dim=1, descending=True, stable=True)[:, :count]
    row = torch.arange(len(values), device=values.device)[:, None]
    return tuple(tensor[row, order] for tensor in (values, *others))


def mean_and_samples(
    imagined: Imagination,
    observations: Tensor,
    goals: Tensor | None,
    mean: Tensor,
    actions: Tensor,
    weights: Tensor,
    kept: int,
) -> Plan:
    """The plan of a weighted mean (B, H, A): the mean first, whose share of itself is all, then by their share samples.

    Args:
        imagined: what the ensemble makes of them.
        observations, goals: of the environments.
        mean: what is acted.
        actions: (B, N, H, A) that it is the mean of.
        weights: (B, N) logarithms of their shares, the scores of the plan.
        kept: how many samples the plan holds.
    """
    weights, actions = best_first(weights, kept, actions)
    shares = torch.cat([weights.new_zeros(len(weights), 1), weights], 1)
    return imagined.plan(observations, torch.cat([mean[:, None], actions], 1), goals, shares)


def settings_are_positive(config: Any, *names: str) -> None:
    """Refuse settings that are not finite numbers above 0."""
    for name in names:
        value = getattr(config, name)
        require(0 < value < math.inf, name, value, "be a finite number above 0")
