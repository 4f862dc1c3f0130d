"""Warm start of a search: of the last plan, the trajectories that began as was acted are among its candidates.

Shapes: B environments, K beams, H planned transitions, A action dimensions. The published search (Janner, Li, Levine
2021) forgets each plan; carrying the last one over is the custom of model predictive control.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trajplan.planners.plan import Plan
from trajplan.tokenizers.tokenizer import Tokenizer

NOTHING = -1


def what_is_left(
    previous: Sequence[Plan | None], beams: int, horizon: int, acted: int, tokenizer: Tokenizer, dims: slice
) -> Tensor:
    """Action tokens (B, K, H, A) int64 that each beam's first candidate is to take, `NOTHING` where it is free.

    Half of the beams begin from the last plan, best first, so that the other half is as free as without it.

    Args:
        previous: each environment's last plan; None: it has none yet.
        beams: K.
        horizon: H.
        acted: steps of each plan that are gone.
        tokenizer: of the model.
        dims: the action's places in a transition.
    """
    left = torch.full((len(previous), beams, horizon, dims.stop - dims.start), NOTHING)
    for row, plan in enumerate(previous):
        if plan is None:
            continue
        began = (plan.actions[:, :acted] == plan.actions[:1, :acted]).all((1, 2))
        best = np.flatnonzero(began)[: max(1, beams // 2)]
        actions = torch.from_numpy(plan.actions[best, acted:]).to(tokenizer.values.device)
        tokens = tokenizer.encode(actions, dims).cpu()
        free = ~torch.from_numpy(plan.alive[best, acted:])[..., None]
        left[row, : len(best), : horizon - acted] = tokens.masked_fill(free, NOTHING)
    return left


def follow(sampled: Tensor, left: Tensor | None, step: int, dim: int) -> Tensor:
    """Action tokens `sampled` (B, K, n), each beam's first candidate taking what is `left` (B, K, H, A) for it."""
    if left is None or left.dim() < 4:
        return sampled
    planned = left[:, :, step, dim]
    first = torch.where(planned == NOTHING, sampled[..., 0], planned)
    return torch.cat([first[..., None], sampled[..., 1:]], -1)


def pass_on(left: Tensor | None, beams: Tensor, chosen: Tensor) -> Tensor | None:
    """What is left for the candidates `chosen` of `beams` (B, K): only a beam's first goes on with what it follows."""
    if left is None or left.dim() < 4:
        return left
    row = torch.arange(len(beams), device=beams.device)[:, None]
    return left[row, beams].masked_fill((chosen != 0)[..., None, None], NOTHING)
