"""The soft maximum of Q over continuous actions, by importance sampling (Kumar et al. 2020, appendix F).

Shapes: B batch, S observation_dim, A action_dim, C candidate actions an observation.
"""

import math

import torch
from torch import Tensor

from trajplan.models.policies import SquashedGaussian
from trajplan.models.seeds import drawn


@torch.no_grad()
def candidate_actions(
    policy: SquashedGaussian, observations: Tensor, next_observations: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Actions at which to look for high Q(s, a): uniform ones, the policy's at s and the policy's at s'.

    Args:
        policy: what the data's Q is compared with.
        observations, next_observations: (B, S).
        count: of each of the three kinds.

    Returns:
        Actions (3 * count, B, A), and the logarithm of the density that each was drawn from, (3 * count, B).
    """
    sampled, log_prob = policy(torch.cat([observations, next_observations])).sample(count)
    now, following = sampled.chunk(2, dim=1)
    uniform = drawn(lambda one, by: torch.empty_like(one).uniform_(-1, 1, generator=by), now)
    log_prob_now, log_prob_following = log_prob.chunk(2, dim=1)
    # The density of [-1, 1]^A is 1 / 2^A.
    log_uniform = torch.full_like(log_prob_now, -now.shape[-1] * math.log(2))
    return torch.cat([uniform, now, following]), torch.cat([log_uniform, log_prob_now, log_prob_following])


def soft_maximum(q: Tensor, log_density: Tensor, temperature: float) -> Tensor:
    """temperature * log of the integral of exp(Q(s, a) / temperature) da over all actions, estimated.

    Each candidate counts by the inverse of the density it was drawn from, whatever that was, so that the mean under
    the logarithm is without bias.

    Args:
        q: (..., C, B) of the candidates.
        log_density: (C, B) of `candidate_actions`.
        temperature: above 0; the nearer to 0, the nearer to the maximum.

    Returns:
        (..., B).
    """
    mean = torch.logsumexp(q / temperature - log_density, dim=-2) - math.log(q.shape[-2])
    return temperature * mean
