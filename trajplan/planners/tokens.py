"""What planners on the Trajectory Transformer share: from numbers to tokens and back, and the model's window.

Shapes as in `trajplan.planners.beam_search`: B environments, K trajectories of H transitions, J = S + A + 2 tokens a
transition, C transitions of the past, V bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trajplan.devices import is_out_of_memory
from trajplan.errors import ConfigError
from trajplan.models.decoder import CachedDecoder, Decoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.graph import GraphedFunction
from trajplan.planners.plan import Plan
from trajplan.tokenizers.tokenizer import Tokenizer

# A goal is near the data while it lies so little outside their range, as a share of its width.
OUTSIDE = 0.01

DecoderMaker = Callable[[TrajectoryTransformer], Decoder]


@dataclass
class TokenPlans:
    """The trajectories of a batch of environments as a search writes them.

    Attributes:
        tokens: (B, K, H, J) int64; observation tokens of transition 0 are the observation planned from, and
            return-to-go tokens are 0 (a search reads `returns`).
        rewards, returns, scores, alive, log_likelihood: as in `Plan`, with a batch dimension.
    """

    tokens: Tensor
    rewards: Tensor
    returns: Tensor
    scores: Tensor
    alive: Tensor
    log_likelihood: Tensor

    @classmethod
    def begin(cls, present: Tensor, kept: int, horizon: int, transition_dim: int) -> "TokenPlans":
        """K empty trajectories of each environment, from observation tokens `present` (B, S)."""
        B, device = len(present), present.device
        plans = cls(
            tokens=torch.zeros(B, kept, horizon, transition_dim, dtype=torch.int64, device=device),
            rewards=torch.zeros(B, kept, horizon, device=device),
            returns=torch.zeros(B, kept, horizon, device=device),
            scores=torch.zeros(B, kept, device=device),
            alive=torch.ones(B, kept, horizon, dtype=torch.bool, device=device),
            log_likelihood=torch.zeros(B, kept, device=device),
        )
        plans.tokens[:, :, 0, : present.shape[1]] = present[:, None]
        return plans

    def reorder(self, kept: Tensor) -> "TokenPlans":
        """The trajectories `kept` (B, K'), in that order."""
        row = torch.arange(len(kept), device=kept.device)[:, None]
        return TokenPlans(*(value[row, kept] for value in self.__dict__.values()))

    def end_where(self, live: Tensor, step: int) -> None:
        """End trajectories after transition `step` unless `live` (B, K)."""
        self.alive[:, :, step + 1 :] &= live[..., None]
        self.returns[:, :, step].masked_fill_(~live, 0)

    def decoded(self, tokenizer: Tokenizer, observation_dim: int, action_dim: int) -> Plan:
        """The trajectories in numbers."""
        S, A = observation_dim, action_dim
        # A stop token decodes to nothing; `alive` tells where that matters.
        observations = self.tokens[..., :S].clamp(max=tokenizer.bins - 1)
        return Plan(
            observations=tokenizer.decode(observations, slice(0, S)),
            actions=tokenizer.decode(self.tokens[..., S : S + A], slice(S, S + A)),
            rewards=self.rewards,
            returns=self.returns,
            scores=self.scores,
            alive=self.alive,
            log_likelihood=self.log_likelihood,
        )


def read_prefix(
    model: TrajectoryTransformer, tokenizer: Tokenizer, observations: Tensor, past: Tensor
) -> tuple[Tensor, Tensor]:
    """What a plan begins with, as tokens on the model's device.

    Args:
        model, tokenizer: of one checkpoint.
        observations: (B, S) float32, the present.
        past: (B, C, S + A + 1) float32, the observations, actions and rewards of the last C transitions.

    Returns:
        (B, C, J) int64 past transitions and (B, S) int64 present observations. The return-to-go is not known while
        acting; its place holds a constant that the model does not read.
    """
    S, J = model.config.observation_dim, model.config.transition_dim
    present = tokenizer.encode(observations.to(model.device), slice(0, S))
    known = tokenizer.encode(past.to(model.device), slice(0, J - 1))
    return torch.cat([known, known.new_zeros(*known.shape[:2], 1)], 2), present


def goal_tokens(model: TrajectoryTransformer, tokenizer: Tokenizer, goals: Tensor | None) -> Tensor | None:
    """The goals (B, G') of a dataset as tokens (B, G) on the model's device; None for a model that reads no goals.

    A goal that is missing is refused, and one outside the range of the data by more than `OUTSIDE` of its width.
    """
    columns, places = model.config.goal_columns, model.config.goal_places
    if columns is None or places is None:
        return None
    if goals is None:
        raise ConfigError("The model acts for a goal, and an episode was begun without one: give it at reset.")
    tokens = []
    for column, place in zip(columns, places, strict=True):
        wanted, (low, high) = goals[:, place : place + 1], tokenizer.fitted_range(column)
        outside = ((low - wanted).maximum(wanted - high) > OUTSIDE * (high - low))[:, 0]
        if outside.any():
            raise ConfigError(
                f"The goal is {float(wanted[outside][0]):g} in the observation's column {column}, and the model's data "
                f"lie between {low:g} and {high:g} there: it cannot tell such a goal from one at their edge."
            )
        tokens.append(tokenizer.encode(wanted.to(model.device), slice(column, column + 1)))
    return torch.cat(tokens, 1)


def next_transition(decoder: Decoder, past: Tensor, planned: Tensor, in_window: int, window: int) -> tuple[Tensor, int]:
    """Read the return-to-go token, and go on to the next transition.

    The model never sees more transitions than the window it was trained on. Where the next one would not fit, the last
    `window // 2` transitions move to the window's start and are encoded anew, whichever decoder is used.

    Args:
        decoder: has read all of `planned` but its last token.
        past: (B, K, C, J) tokens before the plan.
        planned: (B, K, t, J) tokens of the transitions planned so far, all whole.
        in_window: transitions in the model's window.
        window: how many fit.

    Returns:
        Logits (B, K, V + 1) of the first observation token, and how many transitions the window holds with that one.
    """
    if in_window == window:
        in_window = window // 2
        recent = torch.cat([past, planned], 2)[:, :, -in_window:]
        return decoder.restart(recent.flatten(2)), in_window + 1
    return decoder.advance(planned[:, :, -1, -1]), in_window + 1


def make_room(decoder: Decoder, past: Tensor, planned: Tensor, present: Tensor, window: int) -> tuple[Tensor, int]:
    """Move the model's window so that the state after the coming action fits into it.

    Args:
        decoder: of beams; is restarted.
        past, planned: (B, K, ., J) tokens of the whole transitions before.
        present: (B, K, S) tokens of the state to act in.
        window: how many fit, at least 2.

    Returns:
        Logits (B, K, V + 1) of the first action token, and how many transitions the window holds.
    """
    before = torch.cat([past, planned], 2)
    whole = min(window // 2, window - 2)
    recent = before[:, :, before.shape[2] - whole :]
    return decoder.restart(torch.cat([recent.flatten(2), present], 2)), whole + 1


def log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability (...) in nats of `tokens` (...) under `logits` (..., V)."""
    return logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def predicted_value(tokenizer: Tokenizer, logits: Tensor, dim: int, percentile: float | None = None) -> Tensor:
    """Reward or return-to-go (...) as its bins' expectation, or percentile, from logits (..., V + 1)."""
    probabilities = logits[..., :-1].float().softmax(-1)
    if percentile is None:
        return tokenizer.expectation(probabilities, dim)
    return tokenizer.percentile(probabilities, percentile, dim)


def read_values(
    decoder: Decoder, tokenizer: Tokenizer, plans: TokenPlans, logits: Tensor, live: Tensor, step: int
) -> None:
    """Write reward and return-to-go of transition `step`, whose actions are read; the return's token is not read yet.

    Args:
        decoder: of K trajectories without candidates.
        tokenizer: of the model.
        plans: what is written into; the model goes on from the reward's likeliest token.
        logits: (B, K, V + 1) of the reward token.
        live: (B, K) which trajectories have not ended; the others earn nothing.
        step: number of the transition.
    """
    J = plans.tokens.shape[-1]
    plans.rewards[:, :, step] = predicted_value(tokenizer, logits, J - 2) * live
    plans.tokens[:, :, step, J - 2] = logits.argmax(-1)
    logits = decoder.advance(plans.tokens[:, :, step, J - 2])
    plans.returns[:, :, step] = predicted_value(tokenizer, logits, J - 1) * live


def draw_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform noise (B, *shape) in [0, 1), each environment's from its own generator."""
    return torch.stack([torch.rand(shape, generator=generator) for generator in generators]).to(device)


def bind_decoder(search: Callable[..., TokenPlans], model: TrajectoryTransformer, decoder: DecoderMaker) -> Any:
    """`search` with a decoder of the model as its first argument; on a GPU, captured as a graph."""
    if model.device.type == "cuda" and decoder is CachedDecoder:
        return GraphedFunction(lambda: partial(search, decoder(model)))
    return partial(search, decoder(model))


def plan_tokens(
    search: Callable[..., TokenPlans],
    model: TrajectoryTransformer,
    tokenizer: Tokenizer,
    observations: Tensor,
    past: Tensor,
    noise: Callable[[], Sequence[Tensor]],
    smaller: str,
    goals: Tensor | None = None,
) -> tuple[Tensor, Plan]:
    """What `Planner.plan` gives, by a search over tokens.

    Args:
        search: from `bind_decoder`; takes the prefix (B, G + C * J + S), the goal first, and the noise.
        model, tokenizer: of one checkpoint.
        observations, past: as `Planner.plan` takes them.
        noise: makes what the search draws tokens with.
        smaller: the settings that plans get smaller by, for the sentence about too little memory.
        goals: as `Planner.plan` takes them.
    """
    tokens, present = read_prefix(model, tokenizer, observations, past)
    aim = goal_tokens(model, tokenizer, goals)
    prefix = [tokens.flatten(1), present] if aim is None else [aim, tokens.flatten(1), present]
    try:
        plans = search(torch.cat(prefix, 1), *noise())
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"The plans need more memory than there is on {model.device}: choose a smaller {smaller}, or plan for "
            f"fewer environments at once ({len(present)})."
        ) from None
    plan = plans.decoded(tokenizer, model.config.observation_dim, model.config.action_dim)
    return plan.actions[:, 0, 0], plan
