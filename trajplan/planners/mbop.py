"""Model-based offline planning, MBOP (Argenson, Dulac-Arnold 2021, algorithm 2).

Sequences of actions are drawn from cloned policies with noise, mixed with the last plan, followed by one member of the
ensemble each, and averaged by exp(score / temperature). The score ends with the value of what the data's policies would
do from there on. `trajplan dynamics --prior` learns policies and values.

Shapes: B environments, N sequences of H steps, K elites, S observation_dim, A action_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError
from trajplan.models.critic import Critic
from trajplan.models.dynamics import Uncertainty
from trajplan.planners.plan import Plan
from trajplan.planners.shooting import (
    Dynamics,
    Imagination,
    ShootingConfig,
    first_means,
    mean_and_samples,
    normal_noise,
    settings_are_positive,
    weighted_mean,
    what_is_left,
)


@dataclass(frozen=True, kw_only=True)
class MBOPConfig(ShootingConfig):
    """Act by the mean of sequences drawn from cloned policies, weighed by what the ensemble predicts of them."""

    # Cloned policies see the action before.
    context: ClassVar[int] = 1

    penalty_weight: float = option(0.0, "lambda: how much of the ensemble's uncertainty is taken off a reward")
    horizon: int = option(10, "steps to plan ahead")
    samples: int = option(100, "sequences drawn for a plan")
    std: float = option(0.2, "standard deviation of the noise on cloned actions, which are from -1 to 1")
    mix: float = option(0.1, "beta: share of the last plan in every action drawn")
    temperature: float = option(
        0.5, "of the weights exp(score / temperature), in standard deviations of the sequences' scores"
    )
    kept: int = option(20, "sequences that the plan holds beside the mean, for pictures")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "kept"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        settings_are_positive(self, "std", "temperature")
        require(0 <= self.mix < 1, "mix", self.mix, "be at least 0 and below 1")


class MBOP:
    """Plans on an ensemble with a prior; the first of a plan is the mean, and scores are logarithms of shares in it.

    Args:
        dynamics: the ensemble; its device is where plans are made.
        info: the dataset it learned from.
        config: settings.
        critic: values the end of a sequence, in place of the prior's own values.
    """

    def __init__(self, dynamics: Dynamics, info: DatasetInfo, config: MBOPConfig, critic: Critic | None = None) -> None:
        self.dynamics, self.config = dynamics, config
        self.imagined = Imagination(dynamics, info, config, critic)
        prior = getattr(dynamics, "prior", None)
        if prior is None:
            raise ConfigError(
                "mbop plans with cloned policies, and this ensemble was learned without: train it by trajplan dynamics "
                "with --prior, or choose another planner."
            )
        self.prior = prior

    @torch.no_grad()
    def plan(
        self,
        observations: Tensor,
        past: Tensor,
        generators: Sequence[torch.Generator],
        goals: Tensor | None = None,
        previous: Sequence[Plan | None] | None = None,
    ) -> tuple[Tensor, Plan]:
        """See `trajplan.planners.controller.Planner`."""
        config, imagined = self.config, self.imagined
        size = (config.samples, config.horizon, imagined.action_dim)
        noise = config.std * normal_noise(generators, size, imagined.device)
        left = what_is_left(previous, len(generators), imagined.scaling, 1, config)
        last = first_means(left, *size[1:], imagined.device)
        # In an episode's first plan there is none to mix with.
        shares = [0.0 if sequences is None else config.mix for sequences in left]
        mix = torch.tensor(shares, device=imagined.device)[:, None, None]
        actions, scores = self.drawn(observations, self._action_before(past), noise, last, mix, goals)
        mean, weights = weighted_mean(actions, scores, config.temperature)
        plan = mean_and_samples(imagined, observations, goals, mean, actions, weights, config.kept)
        return plan.actions[:, 0, 0], plan

    def drawn(
        self, observations: Tensor, before: Tensor, noise: Tensor, last: Tensor, mix: Tensor, goals: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sequences (B, N, H, A) in [-1, 1] and their scores (B, N).

        Args:
            observations: (B, S).
            before: (B, A) the actions before.
            noise: (B, N, H, A).
            last: (B, H, A) the last plan.
            mix: (B, 1, 1) the last plan's share.
            goals: as for `Planner.plan`.
        """
        config, imagined, dynamics = self.config, self.imagined, self.dynamics
        kind: Uncertainty | None = config.penalty if config.penalty_weight else None
        B, N, H, A = noise.shape
        rows = torch.arange(B * N, device=noise.device)
        # Sequence n is of member n mod K throughout: its policy acts in its model.
        member = (rows % N) % len(dynamics.elites)
        states = observations.to(noise.device).repeat_interleave(N, 0)
        action = before.repeat_interleave(N, 0)
        alive, scores = (
            torch.ones(B * N, dtype=torch.bool, device=noise.device),
            torch.zeros(B * N, device=noise.device),
        )
        actions = torch.empty_like(noise)
        for number in range(H):
            cloned = self.prior.actions(states, action, self.prior.elites)[member % len(self.prior.elites), rows]
            noisy = cloned.view(B, N, A) + noise[:, :, number]
            actions[:, :, number] = ((1 - mix) * noisy + mix * last[:, None, number]).clamp(-1, 1)
            action = actions[:, :, number].flatten(0, 1)
            taken = imagined.scaling.environment_actions(action)
            step = dynamics.expected(states, taken, kind, followed=member)
            rewards = step.rewards
            if step.uncertainty is not None:
                rewards = rewards - config.penalty_weight * step.uncertainty
            scores += config.discount**number * rewards * alive
            states = step.next_observations
            alive = alive & ~step.terminations
        if imagined.critic is not None:
            ends = imagined.end_values(states.view(B, N, -1), goals).flatten()
        else:
            ends = self.prior.values(states, action, self.prior.elites).mean(0)
        return actions, (scores + config.discount**H * ends * alive).view(B, N)

    def _action_before(self, past: Tensor) -> Tensor:
        """(B, A) in [-1, 1]; before an episode's first step the middle of the Box."""
        A = self.imagined.action_dim
        if past.shape[1] == 0:
            return torch.zeros(len(past), A, device=self.imagined.device)
        return self.imagined.scaling.actions(past[:, -1, -1 - A : -1].to(self.imagined.device))
