"""Value functions: V(s), and Q(s, a) as two functions whose smaller value guards against over-estimation.

Shapes: B batch, S observation_dim, A action_dim, C candidate actions an observation. Actions are in [-1, 1], or an
index for Discrete ones.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trajplan.models.distributions import Categorical, Distribution
from trajplan.models.networks import Dimensions, EnsembleMLP, mlp

M = TypeVar("M", bound=nn.Module)


class Value(nn.Module):
    """V(s): (..., S) -> (...)."""

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.network = mlp(dimensions.observation_dim, hidden, 1)

    def forward(self, observations: Tensor) -> Tensor:
        """(..., S) -> (...)."""
        return self.network(observations).squeeze(-1)


class TwinQ(nn.Module):
    """Two functions Q(s, a) of continuous actions, computed together."""

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.networks = EnsembleMLP(2, dimensions.observation_dim + dimensions.action_dim, hidden, 1)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B, S) and (B, A) -> (2, B); or (B, S) and (C, B, A), C candidates each -> (2, C, B)."""
        observations = observations.expand(*actions.shape[:-1], observations.shape[-1])
        joined = torch.cat([observations, actions], dim=-1)
        values = self.networks(joined.reshape(-1, joined.shape[-1]))
        return values.view(2, *actions.shape[:-1])


class DiscreteTwinQ(nn.Module):
    """Two functions Q(s, a) of Discrete actions, each giving the values of all of them at once."""

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...]) -> None:
        super().__init__()
        assert dimensions.num_actions is not None
        self.networks = EnsembleMLP(2, dimensions.observation_dim, hidden, dimensions.num_actions)

    def values(self, observations: Tensor) -> Tensor:
        """Q of every action: (B, S) -> (2, B, num_actions)."""
        return self.networks(observations)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B, S) and indices (B, 1) -> (2, B)."""
        index = actions.long().expand(2, *actions.shape)
        return self.values(observations).gather(-1, index).squeeze(-1)


class TwinGoalValue(nn.Module):
    """Two functions V(s, g), computed together: GELU layers, each normalised (Ba et al. 2016) if asked for.

    The normalisation has no scale and shift of its own, which the next layer's weights and biases hold already.
    """

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], layer_norm: bool) -> None:
        super().__init__()
        activation = normalised_gelu if layer_norm else functional.gelu
        self.networks = EnsembleMLP(2, dimensions.with_goal.observation_dim, hidden, 1, activation)

    def forward(self, observations: Tensor, goals: Tensor) -> Tensor:
        """(B, S) and (B, G) -> (2, B)."""
        return self.networks(torch.cat([observations, goals], dim=-1)).squeeze(-1)


def normalised_gelu(x: Tensor) -> Tensor:
    """GELU, then every row with mean 0 and variance 1: (..., width)."""
    return functional.layer_norm(functional.gelu(x), x.shape[-1:])


def make_critic(dimensions: Dimensions, hidden: tuple[int, ...]) -> TwinQ | DiscreteTwinQ:
    """The twin Q for the kind of actions."""
    return TwinQ(dimensions, hidden) if dimensions.num_actions is None else DiscreteTwinQ(dimensions, hidden)


def target_of(network: M) -> M:
    """A copy that no gradient reaches, to be moved by `polyak_update`."""
    return copy.deepcopy(network).requires_grad_(False)


def value_and_entropy(
    critic: TwinQ | DiscreteTwinQ, observations: Tensor, distribution: Distribution
) -> tuple[Tensor, Tensor]:
    """The smaller Q of what a policy does at observations (B, S), and the policy's entropy there: (B,) and (B,).

    Both are exact for Discrete actions. Else they are estimates from one reparametrised action: its Q and its
    negative log-probability.
    """
    if isinstance(critic, DiscreteTwinQ):
        assert isinstance(distribution, Categorical)
        log_probs = distribution.log_probs
        probs = log_probs.exp()
        return (probs * critic.values(observations).amin(0)).sum(-1), -(probs * log_probs).sum(-1)
    actions, log_prob = distribution.sample()
    return critic(observations, actions).amin(0), -log_prob
