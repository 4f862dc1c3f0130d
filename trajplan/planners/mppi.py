"""Model predictive path integral control on a dynamics ensemble (Williams et al. 2017).

Sequences of actions are drawn around the last plan, and the plan is their mean, weighed by exp(score / temperature):
the solution of a control problem whose cost of control is the divergence from what is drawn.

Shapes: B environments, N sequences of H steps, A action_dim.
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
    coloured,
    first_means,
    mean_and_samples,
    normal_noise,
    settings_are_positive,
    weighted_mean,
    what_is_left,
)


@dataclass(frozen=True, kw_only=True)
class MPPIConfig(ShootingConfig):
    """Act by the mean of sequences drawn around the last plan, weighed by what the ensemble predicts of them."""

    samples: int = option(200, "sequences drawn in an iteration")
    iterations: int = option(2, "times that the mean is taken, each time around the last")
    std: float = option(0.4, "standard deviation of the noise, actions being from -1 to 1")
    temperature: float = option(
        0.2, "of the weights exp(score / temperature), in standard deviations of the sequences' scores"
    )
    noise_exponent: float = option(1.0, "power of noise falls with the frequency to this (0: white)")
    kept: int = option(20, "sequences that the plan holds beside the mean, for pictures")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "iterations", "kept"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        settings_are_positive(self, "std", "temperature")
        require(0 <= self.noise_exponent <= 10, "noise_exponent", self.noise_exponent, "be from 0 to 10")


class MPPI:
    """Plans on an ensemble; the first of a plan is the mean, and scores are logarithms of shares in it.

    Args:
        dynamics: the ensemble; its device is where plans are made.
        info: the dataset it learned from.
        config: settings.
        critic: values the end of a sequence.
    """

    def __init__(self, dynamics: Dynamics, info: DatasetInfo, config: MPPIConfig, critic: Critic | None = None) -> None:
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
        size = (config.samples, config.horizon, imagined.action_dim)
        left = what_is_left(previous, len(generators), imagined.scaling, 1, config)
        mean = first_means(left, *size[1:], imagined.device)
        for _ in range(config.iterations):
            noise = coloured(normal_noise(generators, size, imagined.device), config.noise_exponent)
            drawn = (mean[:, None] + config.std * noise).clamp(-1, 1)
            # The mean itself is one of them.
            drawn[:, 0] = mean
            mean, weights = weighted_mean(drawn, imagined.scores(observations, drawn, goals), config.temperature)
        plan = mean_and_samples(imagined, observations, goals, mean, drawn, weights, config.kept)
        return plan.actions[:, 0, 0], plan
