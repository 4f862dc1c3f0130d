"""Random shooting: sequences of actions drawn uniformly, the best by a dynamics ensemble (Nagabandi et al. 2018).

The simplest planner on an ensemble, and the floor of the others. Shapes: B environments, N sequences of H steps, A
action_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.data.info import DatasetInfo
from trajplan.models.critic import Critic
from trajplan.planners.plan import Plan
from trajplan.planners.shooting import Dynamics, Imagination, ShootingConfig, best_first, what_is_left


@dataclass(frozen=True, kw_only=True)
class RandomShootingConfig(ShootingConfig):
    """Draw sequences of actions uniformly, and act by the one that the ensemble predicts most of."""

    samples: int = option(500, "sequences drawn for a plan")
    hold: int = option(1, "steps that every drawn action is held for")
    kept: int = option(20, "sequences that the plan holds, for pictures")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "hold", "kept"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")


class RandomShooting:
    """Plans on an ensemble; a plan's score is the predicted discounted return, less the penalty.

    Args:
        dynamics: the ensemble; its device is where plans are made.
        info: the dataset it learned from.
        config: settings.
        critic: values the end of a sequence.
    """

    def __init__(
        self, dynamics: Dynamics, info: DatasetInfo, config: RandomShootingConfig, critic: Critic | None = None
    ) -> None:
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
        size = (config.samples, -(-config.horizon // config.hold), imagined.action_dim)
        drawn = [torch.rand(size, generator=generator) for generator in generators]
        actions = 2 * torch.stack(drawn).to(imagined.device) - 1
        actions = actions.repeat_interleave(config.hold, 2)[:, :, : config.horizon]
        for row, left in enumerate(what_is_left(previous, len(actions), imagined.scaling, 1, config)):
            # The best of the last plan is one of the sequences.
            if left is not None:
                actions[row, 0] = left[0]
        scores = imagined.scores(observations, actions, goals)
        scores, actions = best_first(scores, config.kept, actions)
        plan = imagined.plan(observations, actions, goals, scores)
        return plan.actions[:, 0, 0], plan
