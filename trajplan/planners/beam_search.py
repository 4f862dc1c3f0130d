"""Beam search that maximises reward (Janner, Li, Levine 2021, algorithm 1), or what a critic expects (its section 3.3).

Shapes: B environments, K beams, n candidates a beam, H planned transitions, C context transitions, S observation
dimensions, A action dimensions, J = S + A + 2 tokens a transition, V bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.models.critic import Critic
from trajplan.models.decoder import CachedDecoder, Decoder
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.plan import Plan
from trajplan.planners.sampling import is_random, sample
from trajplan.planners.scores import (
    check_critic,
    deviation,
    disagreement,
    goals_for,
    prune,
    risk_levels,
    state_values,
    weigh_likelihood,
)
from trajplan.planners.settings import check_window
from trajplan.planners.tokens import (
    DecoderMaker,
    TokenPlans,
    bind_decoder,
    draw_noise,
    log_probability,
    make_room,
    next_transition,
    plan_tokens,
    predicted_value,
)
from trajplan.planners.warm_start import follow, pass_on, what_is_left
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
    critic: str | None = option(
        None, "folder of a trained baseline whose values stand for what follows a plan (none: the model's return-to-go)"
    )
    score: Literal["return", "value"] = option(
        "return", "rank by rewards and what follows them, or by the critic's value of the last state alone"
    )
    deviation_weight: float = option(
        0.0, "standard deviations taken off predicted reward and return: above 0 cautious, below 0 bold"
    )
    portfolio: int = option(
        1,
        "parts of the beam, each with its own deviation weight, down to the opposite; the best by expectation is acted",
    )
    likelihood_weight: float = option(0.0, "what a nat of the plan's log-likelihood adds to its score")
    likelihood_threshold: float | None = option(
        None, "drop plans whose log-likelihood a step, in nats, is below this (none: none are)"
    )
    ensemble: str | None = option(None, "folder with a dynamics ensemble whose disagreement is a penalty (none: none)")
    disagreement_weight: float = option(1.0, "what the ensemble's disagreement, in the environment's units, takes off")
    replan_every: int = option(1, "steps acted from one plan before the next is made")
    warm_start: bool = option(False, "let half of the beams begin from what the last plan still holds")

    def __post_init__(self) -> None:
        for name in ("horizon", "beam_width", "n_expand", "replan_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.context >= 0, "context", self.context, "be 0 or more past transitions")
        require(0 < self.discount <= 1, "discount", self.discount, "be above 0 and at most 1")
        require(
            self.replan_every <= self.horizon, "replan_every", self.replan_every, f"be at most {self.horizon} steps"
        )
        require(self.percentile is None or 0 <= self.percentile <= 1, "percentile", self.percentile, "be from 0 to 1")
        require(self.score == "return" or self.critic is not None, "score", self.score, "be return without a critic")
        require(isfinite(self.likelihood_weight), "likelihood_weight", self.likelihood_weight, "be a finite number")
        threshold, spread = self.likelihood_threshold, self.deviation_weight
        require(threshold is None or isfinite(threshold), "likelihood_threshold", threshold, "be finite, or none")
        require(isfinite(spread), "deviation_weight", spread, "be a finite number")
        require(spread == 0 or self.percentile is None, "deviation_weight", spread, "be 0 where there is a percentile")
        parts, width = self.portfolio, self.beam_width
        require(parts >= 1 and width % parts == 0, "portfolio", parts, f"be a divisor of the beam_width, {width}")
        require(spread == 0 or self.score == "return", "deviation_weight", spread, "be 0 where the score is a value")
        require(parts == 1 or spread != 0, "portfolio", parts, "be 1 where the deviation_weight is 0")
        require(0 <= self.disagreement_weight < inf, "disagreement_weight", self.disagreement_weight, "be 0 or more")
        for kind in ("action", "observation"):
            top_k, cdf = getattr(self, f"{kind}_top_k"), getattr(self, f"{kind}_cdf")
            temperature = getattr(self, f"{kind}_temperature")
            require(top_k is None or top_k >= 1, f"{kind}_top_k", top_k, "be at least 1, or none")
            require(cdf is None or 0 < cdf <= 1, f"{kind}_cdf", cdf, "be above 0 and at most 1, or none")
            require(temperature > 0, f"{kind}_temperature", temperature, "be above 0")


class BeamSearch:
    """Plans with a trained model; a plan's score is what its settings make it, else the predicted discounted return.

    Args:
        model: in evaluation mode; its device is where plans are made.
        tokenizer: the one the model was trained with.
        config: settings of the search.
        decoder: how logits are computed; `RecomputingDecoder` is the slow and plain alternative.
        critic, ensemble: what the settings of these names stand for, on the model's device.

    Raises:
        ConfigError: as `check_window` says; with a critic, for a model with a window of 1 transition.
    """

    def __init__(
        self,
        model: TrajectoryTransformer,
        tokenizer: Tokenizer,
        config: BeamSearchConfig,
        decoder: DecoderMaker = CachedDecoder,
        *,
        critic: Critic | None = None,
        ensemble: DynamicsEnsemble | None = None,
    ):
        check_window(config, model.config.window)
        check_critic(critic, model.config.window)
        self.model = model
        self.tokenizer = tokenizer.to(model.device)
        self.config = config
        self.critic, self.ensemble = critic, ensemble
        self._search = bind_decoder(self.search, model, decoder)

    def plan(
        self,
        observations: Tensor,
        past: Tensor,
        generators: Sequence[torch.Generator],
        goals: Tensor | None = None,
        previous: Sequence[Plan | None] | None = None,
    ) -> tuple[Tensor, Plan]:
        """See `trajplan.planners.controller.Planner`.

        Raises:
            ConfigError: if the plans do not fit into memory, or the critic needs a goal and there is none.
        """
        config = self.config
        smaller = f"horizon ({config.horizon}), beam_width ({config.beam_width}) or n_expand ({config.n_expand})"
        aim = goals_for(self.critic, goals, self.model.device)
        return plan_tokens(
            *(self._search, self.model, self.tokenizer, observations, past),
            noise=lambda: (*self._noise(generators), self._left(previous, len(observations)), *aim),
            smaller=smaller,
            goals=goals,
        )

    @torch.inference_mode()
    def search(
        self,
        decoder: Decoder,
        prefix: Tensor,
        action_noise: Tensor,
        observation_noise: Tensor,
        left: Tensor | None = None,
        goals: Tensor | None = None,
    ) -> TokenPlans:
        """The search itself, of tensors alone and without a wait for the device.

        Args:
            decoder: where logits come from.
            prefix: (B, G + C * J + S) int64, the goal (if the model has it), the context, the present.
            action_noise: (B, H, K, n, A) uniform in [0, 1); (B, 0) where actions are greedy.
            observation_noise: (B, H, K, S), or (B, H, K, n, S) with a critic, likewise.
            left: (B, K, H, A) int64 of the last plan, as `warm_start.what_is_left` gives it; else None, or (B, 0).
            goals: (B, G) float32, where the critic needs them.
        """
        config, shape = self.config, self.model.config
        B, K, n, H = prefix.shape[0], config.beam_width, config.n_expand, config.horizon
        S, A, J = shape.observation_dim, shape.action_dim, shape.transition_dim
        device = prefix.device
        past = prefix[:, shape.goal_dim : -S].unflatten(1, (-1, J))[:, None].expand(B, K, -1, J)
        plans = TokenPlans.begin(prefix[:, -S:], K, H, J)
        gained, doubted = torch.zeros(2, B, K, device=device)
        levels = risk_levels(config.deviation_weight, config.portfolio, K, device)
        in_window = past.shape[2] + 1
        logits = decoder.begin(prefix, K, n)[:, None].expand(B, K, -1)

        for step in range(H):
            if self.critic is not None and in_window == shape.window:
                planned, present = plans.tokens[:, :, :step], plans.tokens[:, :, step, :S]
                logits, in_window = make_room(decoder, past, planned, present, shape.window)

            # Expand: every beam becomes n candidates with actions of their own.
            candidates = torch.empty(B, K, n, A + 1, dtype=torch.int64, device=device)
            likelihood = torch.zeros(B, K, n, device=device)
            candidate_logits = logits[:, :, None].expand(B, K, n, -1)
            for dim in range(A):
                sampled = self._sample(candidate_logits, action_noise, step, dim, "action")
                action = follow(sampled, left, step, dim)
                likelihood += log_probability(candidate_logits, action)
                candidates[..., dim] = action
                candidate_logits = decoder.expand(action)
            alive = plans.alive[:, :, step, None]
            reward, reward_doubt = self._predict(candidate_logits, J - 2, alive)
            candidates[..., A] = candidate_logits.argmax(-1)
            candidate_logits = decoder.expand(candidates[..., A])
            log_likelihood = plans.log_likelihood[..., None] + likelihood * alive
            following, following_doubt = self._predict(candidate_logits, J - 1, alive)
            if self.critic is not None:
                # The state after the action, before anything is pruned: it is what the critic values.
                candidate_logits = decoder.expand(torch.zeros_like(candidates[..., A]))
                states, observed, live, candidate_logits = self._observe(
                    decoder.expand, candidate_logits, observation_noise, step, alive, log_likelihood
                )
                following = state_values(self.critic, self.tokenizer, states, goals) * live * alive
                following_doubt = torch.zeros_like(following)

            # Score: rewards so far, then what follows; a beam that has ended earns nothing more.
            weight = config.discount ** (step + 1) if config.score == "return" else 1.0
            earned = gained[..., None] + config.discount**step * self._counted(plans, candidates, reward, step)
            doubts = doubted[..., None] + config.discount**step * reward_doubt
            scores = earned + weight * following - levels * (doubts + weight * following_doubt)
            steps = plans.alive[:, :, : step + 1].sum(-1, keepdim=True)
            scores = weigh_likelihood(
                scores, log_likelihood, steps, config.likelihood_weight, config.likelihood_threshold
            )
            # The candidates of an ended beam are copies: one of them may stay.
            scores[..., 1:].masked_fill_(~alive, float("-inf"))

            # Prune: the best K of an environment's K * n, or of each part of a portfolio its share.
            plans_scores, index = prune(scores, config.portfolio)
            beams, chosen = index // n, index % n
            decoder.select(beams, chosen)
            left = pass_on(left, beams, chosen)
            plans = plans.reorder(beams)
            plans.scores = plans_scores
            plans.tokens[:, :, step, S : J - 1] = pick(candidates, index)
            plans.rewards[:, :, step] = pick(reward, index)
            plans.returns[:, :, step] = pick(following, index)
            plans.log_likelihood = pick(log_likelihood, index)
            gained, doubted = pick(earned, index), pick(doubts, index)
            if self.critic is not None:
                plans.end_where(pick(live, index), step)
            if step + 1 == H:
                last_doubt = weight * pick(following_doubt, index)
                break

            if self.critic is None:
                # Sample the next observation of those that are kept.
                planned = plans.tokens[:, :, : step + 1]
                logits, in_window = next_transition(decoder, past, planned, in_window, shape.window)
                present, plans.log_likelihood, live, logits = self._observe(
                    decoder.advance, logits, observation_noise, step, plans.alive[:, :, step], plans.log_likelihood
                )
                plans.end_where(live, step)
            else:
                present, plans.log_likelihood = pick(states, index), pick(observed, index)
                logits, in_window = pick(candidate_logits, index), in_window + 1
            plans.tokens[:, :, step + 1, :S] = present
        if config.portfolio == 1:
            return plans
        # The cautious and the bold are compared by what all of them expect.
        plans.scores = plans.scores + levels[:, 0] * (doubted + last_doubt)
        return plans.reorder(plans.scores.argsort(stable=True, dim=-1, descending=True))

    def _observe(
        self,
        append: Callable[[Tensor], Tensor],
        logits: Tensor,
        noise: Tensor,
        step: int,
        live: Tensor,
        log_likelihood: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sample the observation after transition `step`, token by token.

        Args:
            append: `advance` or `expand` of the decoder.
            logits: (..., V + 1) of its first token.
            noise: for all steps, or empty.
            step: number of the transition.
            live: (...) which trajectories have not ended before.
            log_likelihood: (...) of what is before it.

        Returns:
            Tokens (..., S), the log-likelihood with them, which trajectories go on, and the next token's logits.
        """
        tokens = []
        for dim in range(self.model.config.observation_dim):
            tokens.append(self._sample(logits, noise, step, dim, "observation"))
            log_likelihood = log_likelihood + log_probability(logits, tokens[-1]) * live
            # A stop token is legal in the first dimension alone; what follows it is no part of the plan.
            live = live & (tokens[-1] != self.model.config.bins)
            logits = append(tokens[-1])
        return torch.stack(tokens, -1), log_likelihood, live, logits

    def _counted(self, plans: TokenPlans, candidates: Tensor, reward: Tensor, step: int) -> Tensor:
        """What a step earns in the score (B, K, n): its predicted reward, less the ensemble's disagreement."""
        counted = reward if self.config.score == "return" else torch.zeros_like(reward)
        if self.ensemble is None:
            return counted
        states = plans.tokens[:, :, step, : self.model.config.observation_dim]
        doubt = disagreement(self.ensemble, self.tokenizer, states, candidates[..., :-1])
        return counted - self.config.disagreement_weight * doubt * plans.alive[:, :, step, None]

    def _sample(self, logits: Tensor, noise: Tensor, step: int, dim: int, kind: str) -> Tensor:
        top_k, cdf, temperature = (getattr(self.config, f"{kind}_{name}") for name in ("top_k", "cdf", "temperature"))
        uniform = noise[:, step, ..., dim] if noise.dim() > 2 else None
        return sample(logits, uniform, top_k=top_k, cdf=cdf, temperature=temperature)

    def _predict(self, logits: Tensor, dim: int, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Reward or return-to-go (B, K, n), and its standard deviation if that counts; 0 after an end."""
        value = predicted_value(self.tokenizer, logits, dim, self.config.percentile) * alive
        if self.config.deviation_weight == 0:
            return value, torch.zeros_like(value)
        return value, deviation(self.tokenizer, logits, dim) * alive

    def _left(self, previous: Sequence[Plan | None] | None, batch: int) -> Tensor:
        """What is left of the last plans, for `search`."""
        config, shape = self.config, self.model.config
        if not config.warm_start:
            return torch.empty(batch, 0, device=self.model.device)
        dims = slice(shape.observation_dim, shape.observation_dim + shape.action_dim)
        plans = previous or [None] * batch
        left = what_is_left(plans, config.beam_width, config.horizon, config.replan_every, self.tokenizer, dims)
        return left.to(self.model.device)

    def _noise(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Uniform noise on the model's device; where nothing is sampled, no noise is drawn."""
        config, shape = self.config, self.model.config
        H, K = config.horizon, config.beam_width
        action_shape = (H, K, config.n_expand, shape.action_dim) if is_random(config.action_top_k) else (0,)
        observed = (
            (H, K, shape.observation_dim) if self.critic is None else (H, K, config.n_expand, shape.observation_dim)
        )
        observation_shape = observed if is_random(config.observation_top_k) else (0,)
        # One after the other, as each draws on the same generators.
        draws = [draw_noise(generators, size, self.model.device) for size in (action_shape, observation_shape)]
        return draws[0], draws[1]


def pick(candidates: Tensor, index: Tensor) -> Tensor:
    """Of `candidates` (B, K, n, ...) those at `index` (B, K) into K * n: (B, K, ...)."""
    row = torch.arange(len(index), device=index.device)[:, None]
    return candidates.flatten(1, 2)[row, index]
