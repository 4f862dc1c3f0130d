"""What planners on the transformer may rank by, besides predicted rewards and returns.

Shapes as in `trajplan.planners.beam_search`: B environments, K beams, n candidates a beam, S observation dimensions,
A action dimensions, V bins. Docs: docs/planners/beam_search.md.
"""

import torch
from torch import Tensor

from trajplan.errors import ConfigError
from trajplan.models.critic import Critic
from trajplan.models.dynamics import DynamicsEnsemble, uncertainty_of
from trajplan.tokenizers.tokenizer import Tokenizer


def deviation(tokenizer: Tokenizer, logits: Tensor, dim: int) -> Tensor:
    """Standard deviation (...) of reward or return-to-go over the bins, as logits (..., V + 1) predict it."""
    probabilities = logits[..., :-1].float().softmax(-1)
    distance = tokenizer.values[dim] - tokenizer.expectation(probabilities, dim)[..., None]
    return (probabilities * distance.square()).sum(-1).sqrt()


def risk_levels(weight: float, portfolio: int, beams: int, device: torch.device) -> Tensor:
    """The weight of the deviation at each beam (K, 1): the same for a part, from `weight` down to its opposite."""
    levels = torch.linspace(weight, -weight if portfolio > 1 else weight, portfolio, device=device)
    return levels.repeat_interleave(beams // portfolio)[:, None]


def prune(scores: Tensor, portfolio: int) -> tuple[Tensor, Tensor]:
    """The best K of candidates (B, K, n), those of each part of the beam among themselves.

    Returns:
        Their scores (B, K), best first in each part, and their places (B, K) among the K * n.
    """
    B, K, n = scores.shape
    best, index = scores.view(B, portfolio, -1).topk(K // portfolio, -1)
    first = torch.arange(portfolio, device=scores.device)[:, None] * (K // portfolio * n)
    return best.flatten(1), (index + first).flatten(1)


def state_values(critic: Critic, tokenizer: Tokenizer, states: Tensor, goals: Tensor | None) -> Tensor:
    """The critic's V (B, ...) of observation tokens (B, ..., S), for goals (B, G) where it needs them."""
    observations = tokenizer.decode(states.clamp(max=tokenizer.bins - 1), slice(0, states.shape[-1]))
    if goals is not None:
        goals = goals.view(len(goals), *[1] * (states.dim() - 2), -1).expand(*states.shape[:-1], -1).flatten(0, -2)
    return critic.values(observations.flatten(0, -2), goals).view(states.shape[:-1])


def check_critic(critic: Critic | None, window: int) -> None:
    """Refuse a critic for a model that cannot read the state after an action."""
    if critic is not None and window < 2:
        raise ConfigError("A critic needs a model with a window of 2 transitions or more: it values the second.")


def goals_for(critic: Critic | None, goals: Tensor | None, device: torch.device) -> list[Tensor]:
    """The goals (B, G) of the environments on a device, for a critic that needs them; else nothing."""
    if critic is None or not critic.needs_goals:
        return []
    if goals is None:
        raise ConfigError("The critic values states by a goal, and the environment gives none.")
    return [goals.to(device)]


def disagreement(ensemble: DynamicsEnsemble, tokenizer: Tokenizer, states: Tensor, actions: Tensor) -> Tensor:
    """How far the ensemble's members are apart (B, K, n) about actions (B, K, n, A) in states (B, K, S), all tokens.

    The largest distance of an elite's mean from the mean of all, over the change of the observation and the reward, in
    the environment's units.
    """
    S, A = states.shape[-1], actions.shape[-1]
    observations = tokenizer.decode(states.clamp(max=tokenizer.bins - 1), slice(0, S))
    observations = observations[:, :, None].expand(*actions.shape[:-1], S)
    done = tokenizer.decode(actions, slice(S, S + A))
    prediction = ensemble.predict(observations.flatten(0, -2), done.flatten(0, -2), ensemble.elites)
    return uncertainty_of(prediction, "disagreement").view(actions.shape[:-1])


def weigh_likelihood(
    scores: Tensor, log_likelihood: Tensor, steps: Tensor, weight: float, threshold: float | None
) -> Tensor:
    """Scores (B, K, n) with what a plan's likelihood adds; minus infinity where it is less likely than a threshold.

    The likeliest candidate of each environment stays, so that there is a plan.

    Args:
        scores: of candidates.
        log_likelihood: (B, K, n) of their actions and observations so far, in nats.
        steps: (B, K, 1) that they have taken, at least 1.
        weight: of a nat.
        threshold: the mean of a step, in nats; None: none.
    """
    if weight:
        scores = scores + weight * log_likelihood
    if threshold is None:
        return scores
    mean = log_likelihood / steps
    likeliest = mean.flatten(1).amax(-1)[:, None, None]
    return scores.masked_fill(mean < likeliest.clamp(max=threshold), float("-inf"))
