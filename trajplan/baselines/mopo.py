"""MOPO (Yu et al. 2020): soft actor-critic in a learned model whose rewards are lowered where it is uncertain.

The reward of a model's step is r - lambda u(s, a), u the ensemble's uncertainty (section 4.3 and algorithm 2); with
lambda = 0 it is MBPO (Janner et al. 2019) on a fixed dataset. The model and its rollouts are the trainer's.
"""

import math
from dataclasses import dataclass
from typing import Literal

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.sac import SAC, SACConfig
from trajplan.config import option, require
from trajplan.models.dynamics import Uncertainty


@dataclass(frozen=True, kw_only=True)
class MOPOConfig(ModelBasedConfig, SACConfig):
    """Settings of MOPO; the defaults are OfflineRL-Kit's."""

    penalty_weight: float = option(1.0, "lambda: how much of the uncertainty is taken off a model's rewards (0: MBPO)")
    penalty: Literal["max-deviation", "disagreement"] = option(
        "max-deviation",
        "the uncertainty: the largest norm of a member's standard deviations, or of its mean's distance from all means",
    )
    actor_learning_rate: float = option(1e-4, "Adam's learning rate for the policy, falling to 0 along a cosine")
    temperature_learning_rate: float = option(1e-4, "Adam's learning rate for the entropy's weight")

    def __post_init__(self) -> None:
        SACConfig.__post_init__(self)
        ModelBasedConfig.__post_init__(self)
        require(0 <= self.penalty_weight < math.inf, "penalty_weight", self.penalty_weight, "be 0 or more")

    @property
    def reward_penalty(self) -> tuple[Uncertainty, float]:
        """Kind and weight."""
        return self.penalty, self.penalty_weight


class MOPO(SAC):
    """Soft actor-critic; what makes it MOPO is the data that the trainer gives it."""

    cosine = ("actor",)
