"""Policies: networks from observations (B, S), standardised, to `trajplan.models.distributions` over actions."""

import torch
from torch import Tensor, nn

from trajplan.models.distributions import Categorical, ClippedNormal, Point, TanhNormal
from trajplan.models.networks import Dimensions, mlp


class SquashedGaussian(nn.Module):
    """tanh of a Gaussian that depends on the observation (Haarnoja et al. 2018, appendix C)."""

    LOG_STD = (-20.0, 2.0)

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.network = mlp(dimensions.observation_dim, hidden, 2 * dimensions.action_dim, dropout)

    def forward(self, observations: Tensor) -> TanhNormal:
        """The distribution at each of (B, S)."""
        mean, log_std = self.network(observations).chunk(2, dim=-1)
        return TanhNormal(mean, log_std.clamp(*self.LOG_STD))

    @torch.no_grad()
    def shift_log_std(self, by: float) -> None:
        """Multiply the standard deviations by exp(`by`), for training to start from."""
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        _, log_std = last.bias.chunk(2)
        log_std += by


class BoundedGaussian(nn.Module):
    """A Gaussian, not squashed, with tanh-bounded mean and its own standard deviation (Kostrikov et al. 2022)."""

    LOG_STD = (-5.0, 2.0)

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.network = mlp(dimensions.observation_dim, hidden, dimensions.action_dim, dropout)
        self.log_std = nn.Parameter(torch.zeros(dimensions.action_dim))

    def forward(self, observations: Tensor) -> ClippedNormal:
        """The distribution at each of (B, S)."""
        return ClippedNormal(torch.tanh(self.network(observations)), self.log_std.clamp(*self.LOG_STD))


class Deterministic(nn.Module):
    """One action an observation, bounded by a tanh."""

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.network = mlp(dimensions.observation_dim, hidden, dimensions.action_dim, dropout)

    def forward(self, observations: Tensor) -> Point:
        """The action at each of (B, S)."""
        return Point(torch.tanh(self.network(observations)))


class CategoricalPolicy(nn.Module):
    """A distribution over Discrete actions."""

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        assert dimensions.num_actions is not None
        self.network = mlp(dimensions.observation_dim, hidden, dimensions.num_actions, dropout)

    def forward(self, observations: Tensor) -> Categorical:
        """The distribution at each of (B, S)."""
        return Categorical(self.network(observations))


Policy = SquashedGaussian | BoundedGaussian | Deterministic | CategoricalPolicy

CONTINUOUS: dict[str, type[SquashedGaussian | BoundedGaussian | Deterministic]] = {
    "squashed": SquashedGaussian,
    "gaussian": BoundedGaussian,
    "deterministic": Deterministic,
}


def make_policy(kind: str, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> Policy:
    """The policy of a kind of `CONTINUOUS`; for Discrete actions it is categorical whatever the kind."""
    if dimensions.num_actions is not None:
        return CategoricalPolicy(dimensions, hidden, dropout)
    return CONTINUOUS[kind](dimensions, hidden, dropout)
