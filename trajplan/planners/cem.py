"""The cross-entropy method on a dynamics ensemble, with the savings of iCEM (Pinneri et al. 2020).

Sequences of actions are drawn from a Gaussian, which is fitted to the best of them, several times over (PETS, Chua et
al. 2018, plans so). iCEM draws noise of a colour, keeps some of the best for the next iteration and the next plan, and
draws fewer each time; with `noise_exponent` 0, `keep` 0 and `shrink` 1 it is the plain method.

Shapes: B environments, N sequences of H steps, E elites, A action_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.data.info import DatasetInfo
from trajplan.models.critic import Critic
from trajplan.planners.plan import Plan
from trajplan.planners.shooting import (
    Dynamics,
    Imagination,
    ShootingConfig,
    best_first,
    coloured,
    first_means,
    normal_noise,
    settings_are_positive,
    what_is_left,
)


@dataclass(frozen=True, kw_only=True)
class CEMConfig(ShootingConfig):
    """Fit a Gaussian over sequences of actions to the best of its samples, several times over."""

    samples: int = option(100, "sequences drawn in the first iteration")
    iterations: int = option(4, "times that the Gaussian is fitted")
    elites: int = option(10, "the best sequences, which it is fitted to")
    start_std: float = option(0.5, "standard deviation at the start, actions being from -1 to 1")
    smallest_std: float = option(0.01, "standard deviation that it is never below")
    momentum: float = option(0.1, "share of the last mean and deviation that a fit leaves")
    noise_exponent: float = option(2.0, "power of noise falls with the frequency to this (0: white)")
    keep: float = option(0.3, "share of the elites that go on to the next iteration, and to the next plan")
    shrink: float = option(1.25, "every iteration draws so many times fewer than the one before")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "iterations", "elites"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(2 <= self.elites <= self.samples, "elites", self.elites, "be at least 2 and at most samples")
        settings_are_positive(self, "start_std", "smallest_std")
        for name in ("momentum", "keep"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "be at least 0 and below 1")
        require(0 <= self.noise_exponent <= 10, "noise_exponent", self.noise_exponent, "be from 0 to 10")
        require(self.shrink >= 1, "shrink", self.shrink, "be at least 1")

    @property
    def kept(self) -> int:
        """How many elites go on."""
        return round(self.keep * self.elites)

    def drawn(self, iteration: int) -> int:
        """How many sequences an iteration draws, from 0 on: twice the elites at least, if there were as many before."""
        return max(min(self.samples, 2 * self.elites), int(self.samples * self.shrink**-iteration))


class CEM:
    """Plans on an ensemble; a plan's score is the predicted discounted return, less the penalty.

    Args:
        dynamics: the ensemble; its device is where plans are made.
        info: the dataset it learned from.
        config: settings.
        critic: values the end of a sequence.
    """

    def __init__(self, dynamics: Dynamics, info: DatasetInfo, config: CEMConfig, critic: Critic | None = None) -> None:
        self.dynamics, self.config = dynamics, config
        self.imagined = Imagination(dynamics, info, config, critic)

    @torch.no_grad()
    def plan(
        self,
        observations: Tensor,
        past: Tensor,
        generators: Sequence[torch.Generator],
        goals: Tensor | None = None,
        previous: Sequence[Plan | None] | None = None,
    ) -> tuple[Tensor, Plan]:
        """See `trajplan.planners.controller.Planner`; the past is not read."""
        config, imagined = self.config, self.imagined
        A, device = imagined.action_dim, imagined.device
        left = what_is_left(previous, len(generators), imagined.scaling, max(1, config.kept), config)
        mean = first_means(left, config.horizon, A, device)
        std = torch.full_like(mean, config.start_std)
        elites, scores = mean.new_empty(len(mean), 0, config.horizon, A), mean.new_empty(len(mean), 0)
        for iteration in range(config.iterations):
            noise = normal_noise(generators, (config.drawn(iteration), config.horizon, A), device)
            drawn = mean[:, None] + std[:, None] * coloured(noise, config.noise_exponent)
            drawn = drawn.clamp(-1, 1)
            if iteration == 0 and config.kept:
                for row, sequences in enumerate(left):
                    if sequences is not None:
                        drawn[row, : len(sequences)] = sequences
            if iteration == config.iterations - 1:
                drawn[:, -1] = mean
            found = imagined.scores(observations, drawn, goals)
            # What has a score keeps it: nothing in a prediction is random.
            scores, elites = best_first(
                torch.cat([scores[:, : config.kept], found], 1),
                config.elites,
                torch.cat([elites[:, : config.kept], drawn], 1),
            )
            mean = config.momentum * mean + (1 - config.momentum) * elites.mean(1)
            std = config.momentum * std + (1 - config.momentum) * elites.std(1, correction=0)
            std = std.clamp(min=config.smallest_std)
        plan = imagined.plan(observations, elites, goals, scores)
        return plan.actions[:, 0, 0], plan
