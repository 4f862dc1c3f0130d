"""COMBO (Yu et al. 2021): soft actor-critic in a learned model, with Q held low where the model leads and data is not.

Instead of asking the model how uncertain it is, it lowers Q of state-actions that rollouts visit and raises Q of the
data's, as CQL does. The model and its rollouts are the trainer's.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.engine.method import Metrics
from trajplan.baselines.sac import SAC, SACConfig
from trajplan.config import option, require
from trajplan.data.transitions import Batch
from trajplan.models.conservative import candidate_actions, soft_maximum
from trajplan.models.policies import SquashedGaussian


@dataclass(frozen=True, kw_only=True)
class COMBOConfig(ModelBasedConfig, SACConfig):
    """Settings of COMBO; the defaults are OfflineRL-Kit's."""

    beta: float = option(0.5, "weight of the penalty E_rho[Q] - E_data[Q]")
    rho: Literal["mix", "model"] = option(
        "mix", "the states where Q is lowered: the model's and the data's, as they are in a batch, or the model's alone"
    )
    rho_actions: Literal["soft-maximum", "policy"] = option(
        "soft-maximum", "the actions there: those of high Q, as CQL(H) weighs them, or the policy's"
    )
    candidates: int = option(10, "actions of each kind (uniform, policy at s, policy at s') in the soft maximum")
    real_ratio: float = option(
        0.5, "share of the dataset's own transitions in a batch; the rest is the model's", was="real_share"
    )
    hidden_layers: int = option(3, "hidden layers of policy and critics")
    entropy_in_target: bool = option(False, "whether Q counts the entropy of later steps as reward")
    actor_learning_rate: float = option(1e-4, "Adam's learning rate for the policy, falling to 0 along a cosine")
    temperature_learning_rate: float = option(1e-4, "Adam's learning rate for the entropy's weight")

    def __post_init__(self) -> None:
        SACConfig.__post_init__(self)
        ModelBasedConfig.__post_init__(self)
        require(0 <= self.beta < math.inf, "beta", self.beta, "be 0 or more")
        require(self.candidates >= 1, "candidates", self.candidates, "be at least 1")


class COMBO(SAC):
    """Soft actor-critic with a conservative term between the model's state-actions and the data's."""

    config: COMBOConfig
    cosine = ("actor",)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Squared error of both Q on the targets of all rows, and beta times the penalty.

        The first `real_rows` of the batch are the data's.
        """
        loss, metrics = super().critic_loss(batch)
        if self.config.beta == 0:
            return loss, metrics
        penalty = self.penalty(batch, self.config.real_rows(len(batch.rewards)))
        return loss + self.config.beta * penalty.sum(), metrics | {"critic/penalty": penalty.detach().mean()}

    def penalty(self, batch: Batch, real: int) -> Tensor:
        """E_rho[Q] - E_data[Q] of both Q, (2,); the first `real` rows of the batch are the data's."""
        assert isinstance(self.policy, SquashedGaussian)
        # A batch without rows of the model has no other states than the data's.
        first = real if self.config.rho == "model" and real < len(batch.rewards) else 0
        states, following = batch.observations[first:], batch.next_observations[first:]
        if self.config.rho_actions == "policy":
            with torch.no_grad():
                actions = self.policy(states).sample()[0]
            visited = self.critic(states, actions)
        else:
            actions, log_density = candidate_actions(self.policy, states, following, self.config.candidates)
            visited = soft_maximum(self.critic(states, actions), log_density, 1.0)
        data = self.critic(batch.observations[:real], batch.actions[:real])
        return visited.mean(-1) - data.mean(-1)
