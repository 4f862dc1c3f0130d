"""Policies: distributions over actions given an observation.

All have three methods: `log_prob(observations, actions)` of recorded actions, `sample(observations, count)`, which
draws actions with their log-probabilities, and `act(observations)`, the action without exploration. Continuous actions
are in [-1, 1] in every dimension (the trainer scales the dataset's), Discrete ones an index kept as a float, as the
dataset holds them.

Shapes: B batch, S observation_dim, A action_dim, C candidate actions an observation.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trajplan.models.networks import Dimensions, mlp

# tanh reaches 1 only at infinity: a recorded action on the bound would have an infinite log-probability.
BOUND = 1 - 1e-5
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class SquashedGaussian(nn.Module):
    """tanh of a Gaussian whose mean and deviation depend on the observation (Haarnoja et al. 2018, appendix C)."""

    LOG_STD = (-20.0, 2.0)

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.network = mlp(dimensions.observation_dim, hidden, 2 * dimensions.action_dim, dropout)

    def gaussian(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation before the tanh: (B, A) each."""
        mean, log_std = self.network(observations).chunk(2, dim=-1)
        return mean, log_std.clamp(*self.LOG_STD)

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s), actions clipped to ±(1 - 1e-5): (B, S) and (B, A) -> (B,)."""
        mean, log_std = self.gaussian(observations)
        raw = torch.atanh(actions.clamp(-BOUND, BOUND))
        return (_normal_log_prob(raw, mean, log_std) - _log_slope_of_tanh(raw)).sum(-1)

    def sample(self, observations: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Reparametrised actions and log-probabilities: (B, A) and (B,); with a count C, (C, B, A) and (C, B)."""
        mean, log_std = self.gaussian(observations)
        noise = torch.randn(_with_count(mean, count), device=mean.device)
        raw = mean + log_std.exp() * noise
        # Written in the noise, which is exact, and not in (raw - mean) / deviation, which rounds.
        log_prob = -0.5 * noise.square() - log_std - HALF_LOG_TWO_PI - _log_slope_of_tanh(raw)
        return torch.tanh(raw), log_prob.sum(-1)

    def act(self, observations: Tensor) -> Tensor:
        """tanh of the mean: (B, S) -> (B, A)."""
        return torch.tanh(self.gaussian(observations)[0])


class BoundedGaussian(nn.Module):
    """A Gaussian, not squashed, with tanh-bounded mean and deviations of its own (Kostrikov et al. 2022)."""

    LOG_STD = (-5.0, 2.0)

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.network = mlp(dimensions.observation_dim, hidden, dimensions.action_dim, dropout)
        self.log_std = nn.Parameter(torch.zeros(dimensions.action_dim))

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s): (B, S) and (B, A) -> (B,)."""
        return _normal_log_prob(actions, self.act(observations), self.log_std.clamp(*self.LOG_STD)).sum(-1)

    def sample(self, observations: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Actions clipped to the bounds, and the log-probabilities that they had before: shapes as above."""
        mean, log_std = self.act(observations), self.log_std.clamp(*self.LOG_STD)
        noise = torch.randn(_with_count(mean, count), device=mean.device)
        log_prob = -0.5 * noise.square() - log_std - HALF_LOG_TWO_PI
        return (mean + log_std.exp() * noise).clamp(-1, 1), log_prob.sum(-1)

    def act(self, observations: Tensor) -> Tensor:
        """The mean: (B, S) -> (B, A)."""
        return torch.tanh(self.network(observations))


class Deterministic(nn.Module):
    """One action an observation, bounded by a tanh."""

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.network = mlp(dimensions.observation_dim, hidden, dimensions.action_dim, dropout)

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Minus the squared distance, the log-likelihood up to a constant if the variance were 1/2: -> (B,)."""
        return -(actions - self.act(observations)).square().sum(-1)

    def sample(self, observations: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The action itself; its log-probability counts as 0: shapes as above."""
        mean = self.act(observations)
        actions = mean.expand(_with_count(mean, count))
        return actions, actions.new_zeros(actions.shape[:-1])

    def act(self, observations: Tensor) -> Tensor:
        """(B, S) -> (B, A)."""
        return torch.tanh(self.network(observations))


class Categorical(nn.Module):
    """A distribution over Discrete actions."""

    def __init__(self, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        assert dimensions.num_actions is not None
        self.network = mlp(dimensions.observation_dim, hidden, dimensions.num_actions, dropout)

    def log_probs(self, observations: Tensor) -> Tensor:
        """log pi of every action: (B, S) -> (B, num_actions)."""
        return functional.log_softmax(self.network(observations), dim=-1)

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s): (B, S) and indices (B, 1) -> (B,)."""
        return self.log_probs(observations).gather(-1, actions.long()).squeeze(-1)

    def sample(self, observations: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Indices as floats, and their log-probabilities: shapes as above."""
        log_probs = self.log_probs(observations)
        index = torch.multinomial(log_probs.exp(), count or 1, replacement=True)
        chosen = log_probs.gather(-1, index)
        if count is None:
            return index.to(log_probs.dtype), chosen.squeeze(-1)
        return index.T[..., None].to(log_probs.dtype), chosen.T

    def act(self, observations: Tensor) -> Tensor:
        """The likeliest action: (B, S) -> (B, 1)."""
        return self.network(observations).argmax(-1, keepdim=True).float()


Policy = SquashedGaussian | BoundedGaussian | Deterministic | Categorical

CONTINUOUS: dict[str, type[SquashedGaussian | BoundedGaussian | Deterministic]] = {
    "squashed": SquashedGaussian,
    "gaussian": BoundedGaussian,
    "deterministic": Deterministic,
}


def make_policy(kind: str, dimensions: Dimensions, hidden: tuple[int, ...], dropout: float = 0.0) -> Policy:
    """The policy of a kind of `CONTINUOUS`; for Discrete actions it is categorical whatever the kind."""
    if dimensions.num_actions is not None:
        return Categorical(dimensions, hidden, dropout)
    return CONTINUOUS[kind](dimensions, hidden, dropout)


def _with_count(mean: Tensor, count: int | None) -> tuple[int, ...]:
    return tuple(mean.shape) if count is None else (count, *mean.shape)


def _normal_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - HALF_LOG_TWO_PI


def _log_slope_of_tanh(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), exact also where tanh rounds to 1."""
    return 2 * (math.log(2) - x - functional.softplus(-2 * x))
