"""What planners on the transformer may rank by, besides predicted rewards and returns.

Shapes as in `trajplan.planners.beam_search`: B environments, K beams, n candidates a beam, S observation dimensions,
A action dimensions, V bins. Docs: docs/planners/beam_search.md.
"""

import torch
from torch import Tensor

from trajplan.errors import ConfigError
from trajplan.models.critic import Critic
from trajplan.models.dynamics import DynamicsEnsemble, uncertainty_of
from trajplan.planners.tokens import predicted_value
from trajplan.tokenizers.tokenizer import Tokenizer


def cautious_value(
    tokenizer: Tokenizer, logits: Tensor, dim: int, percentile: float | None, deviation_weight: float
) -> Tensor:
    """Reward or return-to-go (...) from logits (..., V + 1), less its standard deviation times a weight.

    Args:
        tokenizer: of the model.
        logits: of the dimension's token.
        dim: which of a transition's dimensions it is.
        percentile: read it there instead of at its expectation.
        deviation_weight: of the standard deviation of the predicted distribution over the bins.
    """
    value = predicted_value(tokenizer, logits, dim, percentile)
    if deviation_weight == 0:
        return value
    probabilities = logits[..., :-1].float().softmax(-1)
    distance = tokenizer.values[dim] - tokenizer.expectation(probabilities, dim)[..., None]
    return value - deviation_weight * (probabilities * distance.square()).sum(-1).sqrt()


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


def drop_unlikely(scores: Tensor, log_likelihood: Tensor, steps: Tensor, threshold: float) -> Tensor:
    """Scores (B, K, n), minus infinity where the plan so far is less likely than a threshold.

    The likeliest candidate of each environment stays, so that there is a plan.

    Args:
        scores: of candidates.
        log_likelihood: (B, K, n) of their actions and observations so far, in nats.
        steps: (B, K, n) that they have taken, at least 1.
        threshold: the mean of a step, in nats.
    """
    mean = log_likelihood / steps
    likeliest = mean.flatten(1).amax(-1)[:, None, None]
    return scores.masked_fill(mean < likeliest.clamp(max=threshold), float("-inf"))
