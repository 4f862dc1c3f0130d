"""Distributions over actions, as policies give them for a batch of observations.

All have the same three: `mode`, the action without exploration, (B, A); `log_prob(actions)` of recorded actions
(B, A), (B,); `sample(count)`, actions (B, A) with their log-probabilities (B,), or with a count C, (C, B, A) and
(C, B). Continuous actions are in [-1, 1] in every dimension (the trainer scales the dataset's), Discrete ones an index
kept as a float, as the dataset holds them.

Shapes: B batch, A action_dim, C candidate actions an observation.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from trajplan.models.seeds import drawn

# tanh reaches 1 only at infinity: a recorded action on the bound would have an infinite log-probability.
BOUND = 1 - 1e-5
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class TanhNormal:
    """tanh of a Gaussian (Haarnoja et al. 2018, appendix C).

    Args:
        mean, log_std: of the Gaussian before the tanh, (B, A).
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    @property
    def mode(self) -> Tensor:
        """tanh of the mean."""
        return torch.tanh(self.mean)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Actions are clipped to ±(1 - 1e-5)."""
        raw = torch.atanh(actions.clamp(-BOUND, BOUND))
        return (_normal_log_prob(raw, self.mean, self.log_std) - _log_slope_of_tanh(raw)).sum(-1)

    def sample(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Reparametrised."""
        noise = _noise(self.mean, count)
        raw = self.mean + self.log_std.exp() * noise
        # Written in the noise, which is exact, and not in (raw - mean) / std, which rounds.
        log_prob = -0.5 * noise.square() - self.log_std - HALF_LOG_TWO_PI - _log_slope_of_tanh(raw)
        return torch.tanh(raw), log_prob.sum(-1)


class ClippedNormal:
    """A Gaussian whose samples are clipped to the bounds.

    Args:
        mean: (B, A), within the bounds.
        log_std: (A,).
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mode, self.log_std = mean, log_std

    def log_prob(self, actions: Tensor) -> Tensor:
        """Of the Gaussian."""
        return _normal_log_prob(actions, self.mode, self.log_std).sum(-1)

    def sample(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The log-probabilities are those that the actions had before they were clipped."""
        noise = _noise(self.mode, count)
        log_prob = -0.5 * noise.square() - self.log_std - HALF_LOG_TWO_PI
        return (self.mode + self.log_std.exp() * noise).clamp(-1, 1), log_prob.sum(-1)


class Point:
    """One action (B, A) alone."""

    def __init__(self, action: Tensor) -> None:
        self.mode = action

    def log_prob(self, actions: Tensor) -> Tensor:
        """Minus the squared distance: the log-likelihood up to a constant if the variance were 1/2."""
        return -(actions - self.mode).square().sum(-1)

    def sample(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The action itself; its log-probability counts as 0."""
        actions = self.mode.expand(_with_count(self.mode, count))
        return actions, actions.new_zeros(actions.shape[:-1])


class Categorical:
    """A distribution over Discrete actions.

    Args:
        logits: (B, num_actions), up to a constant an observation.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def log_probs(self) -> Tensor:
        """Of every action: (B, num_actions)."""
        return functional.log_softmax(self.logits, dim=-1)

    @property
    def mode(self) -> Tensor:
        """The likeliest."""
        return self.logits.argmax(-1, keepdim=True).float()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Of indices (B, 1)."""
        return self.log_probs.gather(-1, actions.long()).squeeze(-1)

    def sample(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Not reparametrised."""
        log_probs = self.log_probs
        index = drawn(lambda probs, by: torch.multinomial(probs, count or 1, True, generator=by), log_probs.exp())
        chosen = log_probs.gather(-1, index)
        if count is None:
            return index.to(log_probs.dtype), chosen.squeeze(-1)
        return index.T[..., None].to(log_probs.dtype), chosen.T


Distribution = TanhNormal | ClippedNormal | Point | Categorical


def _with_count(mean: Tensor, count: int | None) -> tuple[int, ...]:
    return tuple(mean.shape) if count is None else (count, *mean.shape)


def _noise(mean: Tensor, count: int | None) -> Tensor:
    return drawn(lambda one, by: torch.randn(_with_count(one, count), generator=by, device=one.device), mean)


def _normal_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - HALF_LOG_TWO_PI


def _log_slope_of_tanh(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), exact also where tanh rounds to 1."""
    return 2 * (math.log(2) - x - functional.softplus(-2 * x))
