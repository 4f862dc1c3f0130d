"""Imitation: the likeliest tokens, by a beam search over likelihood (Janner, Li, Levine 2021, section 3.1).

Shapes: B environments, K beams, H planned transitions, C context transitions, S observation dimensions, A action
dimensions, J = S + A + 2 tokens a transition, V bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.models.decoder import CachedDecoder, Decoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.plan import Plan
from trajplan.planners.settings import check_window
from trajplan.planners.tokens import (
    DecoderMaker,
    TokenPlans,
    bind_decoder,
    next_transition,
    plan_tokens,
    read_values,
)
from trajplan.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ImitationConfig:
    """Imitation of the data: the likeliest token each time, or by a beam the likeliest trajectory of tokens."""

    horizon: int = option(1, "transitions to foresee; with one beam those after the first are only for pictures")
    beam_width: int = option(1, "likeliest trajectories kept after each token (1: greedy)")
    context: int = option(5, "past transitions that the plan is conditioned on")
    replan_every: int = option(1, "steps acted from one plan before the next is made")

    def __post_init__(self) -> None:
        for name in ("horizon", "beam_width", "replan_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.context >= 0, "context", self.context, "be 0 or more past transitions")
        require(
            self.replan_every <= self.horizon, "replan_every", self.replan_every, f"be at most {self.horizon} steps"
        )


class Imitation:
    """Acts as the data do; a plan's score is the log-likelihood of its actions and observations.

    Rewards and returns are read, not searched over: their likeliest token is what the model goes on from.

    Args:
        model: in evaluation mode; its device is where plans are made.
        tokenizer: the one the model was trained with.
        config: settings of the search.
        decoder: how logits are computed.
    """

    def __init__(
        self,
        model: TrajectoryTransformer,
        tokenizer: Tokenizer,
        config: ImitationConfig,
        decoder: DecoderMaker = CachedDecoder,
    ):
        check_window(config, model.config.window)
        self.model = model
        self.tokenizer = tokenizer.to(model.device)
        self.config = config
        self._search = bind_decoder(self.search, model, decoder)

    def plan(
        self,
        observations: Tensor,
        past: Tensor,
        generators: Sequence[torch.Generator],
        goals: Tensor | None = None,
    ) -> tuple[Tensor, Plan]:
        """See `trajplan.planners.controller.Planner`; nothing here is random."""
        config = self.config
        smaller = f"horizon ({config.horizon}) or beam_width ({config.beam_width})"
        return plan_tokens(self._search, self.model, self.tokenizer, observations, past, tuple, smaller, goals)

    @torch.inference_mode()
    def search(self, decoder: Decoder, prefix: Tensor) -> TokenPlans:
        """The search itself, of tensors alone and without a wait for the device.

        Args:
            decoder: where logits come from.
            prefix: (B, G + C * J + S) int64, the goal (if the model has it), the context, the present.
        """
        shape, K, H = self.model.config, self.config.beam_width, self.config.horizon
        S, A, J, V = shape.observation_dim, shape.action_dim, shape.transition_dim, shape.bins
        past = prefix[:, shape.goal_dim : -S].unflatten(1, (-1, J))[:, None].expand(-1, K, -1, J)
        in_window = past.shape[2] + 1
        plans = TokenPlans.begin(prefix[:, -S:], K, H, J)
        # All beams begin alike: only the first may branch until there are others.
        plans.scores[:, 1:] = float("-inf")
        live = plans.alive[:, :, 0]
        logits = decoder.begin(prefix, K, 1)[:, None].expand(-1, K, -1)
        for step in range(H):
            for dim in range(S, S + A):
                plans, live, logits = self._append(decoder, plans, live, logits, step, dim)
            read_values(decoder, self.tokenizer, plans, logits, live, step)
            if step + 1 == H:
                break
            planned = plans.tokens[:, :, : step + 1]
            logits, in_window = next_transition(decoder, past, planned, in_window, shape.window)
            for dim in range(S):
                plans, live, logits = self._append(decoder, plans, live, logits, step + 1, dim)
                if dim == 0:
                    # A stop token is legal in the first dimension alone.
                    live = live & (plans.tokens[:, :, step + 1, 0] != V)
            plans.end_where(live, step)
        # Where there were fewer trajectories than beams, the last of them fills the others' places.
        last = plans.scores.isfinite().sum(1, keepdim=True) - 1
        plans = plans.reorder(torch.arange(K, device=prefix.device).minimum(last))
        plans.log_likelihood = plans.scores.clone()
        return plans

    def _append(
        self, decoder: Decoder, plans: TokenPlans, live: Tensor, logits: Tensor, step: int, dim: int
    ) -> tuple[TokenPlans, Tensor, Tensor]:
        """The K likeliest trajectories with one token more, which of them have not ended, and the next logits."""
        added = logits.float().log_softmax(-1)
        # An ended trajectory stays what it is: what follows its end, token 0, costs nothing, and has no rival.
        nothing = torch.full_like(added, float("-inf"))
        nothing[..., 0] = 0.0
        totals = plans.scores[..., None] + torch.where(live[..., None], added, nothing)
        scores, index = totals.flatten(1).topk(totals.shape[1], -1)
        beams, tokens = index // logits.shape[-1], index % logits.shape[-1]
        plans, live = plans.reorder(beams), live.gather(1, beams)
        plans.scores = scores
        plans.tokens[:, :, step, dim] = tokens
        if totals.shape[1] > 1:
            decoder.select(beams, torch.zeros_like(beams))
        return plans, live, decoder.advance(tokens)
