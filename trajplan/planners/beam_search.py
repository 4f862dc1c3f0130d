"""Beam search that maximises reward (Janner, Li, Levine 2021, algorithm 1).

Shapes: B environments, K beams, n candidates a beam, H planned transitions, C context transitions, S observation
dimensions, A action dimensions, J = S + A + 2 tokens a transition, V bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.models.decoder import CachedDecoder, Decoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.plan import Plan
from trajplan.planners.sampling import is_random, sample
from trajplan.planners.settings import check_window
from trajplan.planners.tokens import (
    DecoderMaker,
    TokenPlans,
    bind_decoder,
    draw_noise,
    log_probability,
    next_transition,
    plan_tokens,
    predicted_value,
)
from trajplan.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class BeamSearchConfig:
    """Beam search that maximises reward (Janner, Li, Levine 2021, algorithm 1)."""

    horizon: int = option(15, "transitions to plan ahead")
    beam_width: int = option(128, "partial trajectories kept after each planned transition")
    n_expand: int = option(2, "candidates that each kept trajectory becomes at the next transition")
    context: int = option(5, "past transitions that the plan is conditioned on")
    discount: float = option(0.99, "discount of predicted rewards; the one the model was trained with")
    action_top_k: int | None = option(None, "sample action tokens among the k likeliest (none: all)")
    action_cdf: float | None = option(
        0.4, "sample action tokens among the likeliest up to this mass (none: all); 0.4 is the release's cdf 0.6"
    )
    action_temperature: float = option(1.0, "temperature of the action tokens")
    observation_top_k: int | None = option(1, "sample observation tokens among the k likeliest (1: greedy, none: all)")
    observation_cdf: float | None = option(
        None, "sample observation tokens among the likeliest up to this mass (none: all)"
    )
    observation_temperature: float = option(1.0, "temperature of the observation tokens")
    percentile: float | None = option(
        None, "read reward and return at this percentile of their bins, 0 to 1 (none: their expectation)"
    )
    replan_every: int = option(1, "steps acted from one plan before the next is made")

    def __post_init__(self) -> None:
        for name in ("horizon", "beam_width", "n_expand", "replan_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.context >= 0, "context", self.context, "be 0 or more past transitions")
        require(0 < self.discount <= 1, "discount", self.discount, "be above 0 and at most 1")
        require(
            self.replan_every <= self.horizon, "replan_every", self.replan_every, f"be at most {self.horizon} steps"
        )
        require(self.percentile is None or 0 <= self.percentile <= 1, "percentile", self.percentile, "be from 0 to 1")
        for kind in ("action", "observation"):
            top_k, cdf = getattr(self, f"{kind}_top_k"), getattr(self, f"{kind}_cdf")
            temperature = getattr(self, f"{kind}_temperature")
            require(top_k is None or top_k >= 1, f"{kind}_top_k", top_k, "be at least 1, or none")
            require(cdf is None or 0 < cdf <= 1, f"{kind}_cdf", cdf, "be above 0 and at most 1, or none")
            require(temperature > 0, f"{kind}_temperature", temperature, "be above 0")


class BeamSearch:
    """Plans with a trained model; a plan's score is the predicted discounted return.

    Args:
        model: in evaluation mode; its device is where plans are made.
        tokenizer: the one the model was trained with.
        config: settings of the search.
        decoder: how logits are computed; `RecomputingDecoder` is the slow and plain alternative.

    Raises:
        ConfigError: as `check_window` says.
    """

    def __init__(
        self,
        model: TrajectoryTransformer,
        tokenizer: Tokenizer,
        config: BeamSearchConfig,
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
        """See `trajplan.planners.controller.Planner`.

        Raises:
            ConfigError: if the plans do not fit into memory.
        """
        config = self.config
        smaller = f"horizon ({config.horizon}), beam_width ({config.beam_width}) or n_expand ({config.n_expand})"
        noise = partial(self._noise, generators)
        return plan_tokens(self._search, self.model, self.tokenizer, observations, past, noise, smaller, goals)

    @torch.inference_mode()
    def search(self, decoder: Decoder, prefix: Tensor, action_noise: Tensor, observation_noise: Tensor) -> TokenPlans:
        """The search itself, of tensors alone and without a wait for the device.

        Args:
            decoder: where logits come from.
            prefix: (B, G + C * J + S) int64, the goal (if the model has it), the context, the present.
            action_noise: (B, H, K, n, A) uniform in [0, 1); (B, 0) where actions are greedy.
            observation_noise: (B, H, K, S) likewise.
        """
        config, shape = self.config, self.model.config
        B, K, n, H = prefix.shape[0], config.beam_width, config.n_expand, config.horizon
        S, A, J, V = shape.observation_dim, shape.action_dim, shape.transition_dim, shape.bins
        device = prefix.device
        past = prefix[:, shape.goal_dim : -S].unflatten(1, (-1, J))[:, None].expand(B, K, -1, J)
        plans = TokenPlans.begin(prefix[:, -S:], K, H, J)
        gained = torch.zeros(B, K, device=device)
        in_window = past.shape[2] + 1
        logits = decoder.begin(prefix, K, n)[:, None].expand(B, K, -1)

        for step in range(H):
            # Expand: every beam becomes n candidates with actions of their own.
            candidates = torch.empty(B, K, n, A + 1, dtype=torch.int64, device=device)
            likelihood = torch.zeros(B, K, n, device=device)
            candidate_logits = logits[:, :, None].expand(B, K, n, -1)
            for dim in range(A):
                action = self._sample(candidate_logits, action_noise, step, dim, "action")
                likelihood += log_probability(candidate_logits, action)
                candidates[..., dim] = action
                candidate_logits = decoder.expand(action)
            reward = self._value(candidate_logits, J - 2)
            candidates[..., A] = candidate_logits.argmax(-1)
            return_to_go = self._value(decoder.expand(candidates[..., A]), J - 1)

            # Score: rewards so far, then the predicted return-to-go; a beam that has ended earns nothing more.
            alive = plans.alive[:, :, step, None]
            reward, return_to_go = reward * alive, return_to_go * alive
            earned = gained[..., None] + config.discount**step * reward
            scores = earned + config.discount ** (step + 1) * return_to_go
            # The candidates of an ended beam are copies: one of them may stay.
            scores[..., 1:].masked_fill_(~alive, float("-inf"))

            # Prune: the best K of an environment's K * n.
            plans_scores, index = scores.flatten(1).topk(K, -1)
            beams, chosen = index // n, index % n
            decoder.select(beams, chosen)
            plans = plans.reorder(beams)
            plans.scores = plans_scores
            plans.tokens[:, :, step, S : J - 1] = pick(candidates, index)
            plans.rewards[:, :, step] = pick(reward, index)
            plans.returns[:, :, step] = pick(return_to_go, index)
            plans.log_likelihood += pick(likelihood * alive, index)
            gained = pick(earned, index)
            if step + 1 == H:
                break

            # Sample the next observation of those that are kept.
            planned = plans.tokens[:, :, : step + 1]
            logits, in_window = next_transition(decoder, past, planned, in_window, shape.window)
            live = plans.alive[:, :, step]
            for dim in range(S):
                observation = self._sample(logits, observation_noise, step, dim, "observation")
                plans.log_likelihood += log_probability(logits, observation) * live
                plans.tokens[:, :, step + 1, dim] = observation
                # A stop token is legal in the first dimension alone; what follows it is no part of the plan.
                live = live & (observation != V)
                logits = decoder.advance(observation)
            plans.end_where(live, step)
        return plans

    def _sample(self, logits: Tensor, noise: Tensor, step: int, dim: int, kind: str) -> Tensor:
        top_k, cdf, temperature = (getattr(self.config, f"{kind}_{name}") for name in ("top_k", "cdf", "temperature"))
        uniform = noise[:, step, ..., dim] if noise.dim() > 2 else None
        return sample(logits, uniform, top_k=top_k, cdf=cdf, temperature=temperature)

    def _value(self, logits: Tensor, dim: int) -> Tensor:
        return predicted_value(self.tokenizer, logits, dim, self.config.percentile)

    def _noise(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Uniform noise on the model's device; where nothing is sampled, no noise is drawn."""
        config, shape = self.config, self.model.config
        H, K = config.horizon, config.beam_width
        action_shape = (H, K, config.n_expand, shape.action_dim) if is_random(config.action_top_k) else (0,)
        observation_shape = (H, K, shape.observation_dim) if is_random(config.observation_top_k) else (0,)
        # One after the other, as each draws on the same generators.
        draws = [draw_noise(generators, size, self.model.device) for size in (action_shape, observation_shape)]
        return draws[0], draws[1]


def pick(candidates: Tensor, index: Tensor) -> Tensor:
    """Of `candidates` (B, K, n, ...) those at `index` (B, K) into K * n: (B, K, ...)."""
    row = torch.arange(len(index), device=index.device)[:, None]
    return candidates.flatten(1, 2)[row, index]
