"""Beam search that maximises reward (Janner, Li, Levine 2021, algorithm 1).

Shapes: B environments, K beams, n candidates a beam, H planned transitions, C context transitions, S observation
dimensions, A action dimensions, J = S + A + 2 tokens a transition, V bins.
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
from trajplan.planners.config import BeamSearchConfig, check_window
from trajplan.planners.graph import GraphedFunction
from trajplan.planners.sampling import is_random, sample
from trajplan.tokenizers.tokenizer import Tokenizer


@dataclass
class BeamPlans:
    """The kept beams of a batch of environments, best first.

    Attributes:
        tokens: (B, K, H, J) int64; observation tokens of transition 0 are the observation planned from, and
            return-to-go tokens are 0 (the search reads `returns`).
        rewards: (B, K, H) predicted rewards, 0 after an end.
        returns: (B, K, H) predicted returns-to-go, 0 from an end on.
        scores: (B, K) predicted discounted return of each beam, highest first.
        alive: (B, K, H) False for transitions after the beam's predicted end.
        log_likelihood: (B, K) log-probability of the planned action and observation tokens under the model, in nats; of
            an ended beam those up to its stop token.
    """

    tokens: Tensor
    rewards: Tensor
    returns: Tensor
    scores: Tensor
    alive: Tensor
    log_likelihood: Tensor

    def reorder(self, beams: Tensor) -> "BeamPlans":
        """The plans of beams `beams` (B, K'), in that order."""
        row = torch.arange(len(beams), device=beams.device)[:, None]
        return BeamPlans(*(value[row, beams] for value in self.__dict__.values()))


class BeamSearch:
    """Plans with a trained model.

    The model never sees more transitions than the window it was trained on. When the next planned transition would not
    fit, the search re-anchors: the last `window // 2` transitions move to the window's start and are encoded anew,
    whichever decoder is used.

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
        decoder: Callable[[TrajectoryTransformer], Decoder] = CachedDecoder,
    ):
        check_window(config, model.config.window)
        self.model = model
        self.tokenizer = tokenizer.to(model.device)
        self.config = config
        self._search: Callable[..., Any] = partial(self.search, decoder(model))
        if model.device.type == "cuda" and decoder is CachedDecoder:
            self._search = GraphedFunction(lambda: partial(self.search, decoder(model)))

    def plan(
        self, observations: Tensor, context: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, BeamPlans]:
        """Plan from the present of several environments at once; each gets the plan it would get alone.

        Args:
            observations: (B, S) float32, flattened.
            context: (B, C, J) int64, tokens of the last C transitions, the return-to-go ones ignored.
            generators: one CPU generator an environment, which all of its plan's randomness comes from.

        Returns:
            The best plans' first actions (B, A) float32, and all kept beams.

        Raises:
            ConfigError: if the plans do not fit into memory.
        """
        S = self.model.config.observation_dim
        tokens = self.tokenizer.encode(observations.to(self.model.device), slice(0, S))
        prefix = torch.cat([context.to(tokens.device).flatten(1), tokens], 1)
        try:
            plans: BeamPlans = self._search(prefix, *self._noise(generators))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(
                f"The plans need more memory than there is on {self.model.device}: choose a smaller horizon "
                f"({self.config.horizon}), beam_width ({self.config.beam_width}) or n_expand "
                f"({self.config.n_expand}), or plan for fewer environments at once ({len(prefix)})."
            ) from None
        return self.actions(plans)[:, 0, 0], plans

    def actions(self, plans: BeamPlans) -> Tensor:
        """Planned actions (B, K, H, A) float32."""
        S, A = self.model.config.observation_dim, self.model.config.action_dim
        return self.tokenizer.decode(plans.tokens[..., S : S + A], slice(S, S + A))

    def observations(self, plans: BeamPlans) -> Tensor:
        """Planned observations (B, K, H, S) float32, the first the one planned from."""
        S = self.model.config.observation_dim
        # A stop token decodes to nothing; `alive` tells where that matters.
        return self.tokenizer.decode(plans.tokens[..., :S].clamp(max=self.tokenizer.bins - 1), slice(0, S))

    @torch.inference_mode()
    def search(self, decoder: Decoder, prefix: Tensor, action_noise: Tensor, observation_noise: Tensor) -> BeamPlans:
        """The search itself, of tensors alone and without a wait for the device.

        Args:
            decoder: where logits come from.
            prefix: (B, C * J + S) int64, the context and the present observation.
            action_noise: (B, H, K, n, A) uniform in [0, 1); (B, 0) where actions are greedy.
            observation_noise: (B, H, K, S) likewise.
        """
        config, shape = self.config, self.model.config
        B, K, n, H = prefix.shape[0], config.beam_width, config.n_expand, config.horizon
        S, A, J, V = shape.observation_dim, shape.action_dim, shape.transition_dim, shape.bins
        device = prefix.device
        past = prefix[:, :-S].unflatten(1, (-1, J))[:, None].expand(B, K, -1, J)
        plans = BeamPlans(
            tokens=torch.zeros(B, K, H, J, dtype=torch.int64, device=device),
            rewards=torch.zeros(B, K, H, device=device),
            returns=torch.zeros(B, K, H, device=device),
            scores=torch.zeros(B, K, device=device),
            alive=torch.ones(B, K, H, dtype=torch.bool, device=device),
            log_likelihood=torch.zeros(B, K, device=device),
        )
        plans.tokens[:, :, 0, :S] = prefix[:, None, -S:]
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
            if in_window == shape.window:
                in_window = shape.window // 2
                recent = torch.cat([past.expand(B, K, -1, J), plans.tokens[:, :, : step + 1]], 2)[:, :, -in_window:]
                logits = decoder.restart(recent.flatten(2))
            else:
                logits = decoder.advance(plans.tokens[:, :, step, J - 1])
            in_window += 1
            live = plans.alive[:, :, step]
            for dim in range(S):
                observation = self._sample(logits, observation_noise, step, dim, "observation")
                plans.log_likelihood += log_probability(logits, observation) * live
                plans.tokens[:, :, step + 1, dim] = observation
                # A stop token is legal in the first dimension alone; what follows it is no part of the plan.
                live = live & (observation != V)
                logits = decoder.advance(observation)
            plans.alive[:, :, step + 1 :] &= live[..., None]
            plans.returns[:, :, step].masked_fill_(~live, 0)
        return plans

    def _sample(self, logits: Tensor, noise: Tensor, step: int, dim: int, kind: str) -> Tensor:
        top_k, cdf, temperature = (getattr(self.config, f"{kind}_{name}") for name in ("top_k", "cdf", "temperature"))
        uniform = noise[:, step, ..., dim] if noise.dim() > 2 else None
        return sample(logits, uniform, top_k=top_k, cdf=cdf, temperature=temperature)

    def _value(self, logits: Tensor, dim: int) -> Tensor:
        """Reward or return-to-go (...) as its bins' expectation or percentile, from logits (..., V + 1)."""
        probabilities = logits[..., :-1].float().softmax(-1)
        if self.config.percentile is None:
            return self.tokenizer.expectation(probabilities, dim)
        return self.tokenizer.percentile(probabilities, self.config.percentile, dim)

    def _noise(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Uniform noise on the model's device; where nothing is sampled, no noise is drawn."""
        config, shape = self.config, self.model.config
        H, K = config.horizon, config.beam_width
        action_shape = (H, K, config.n_expand, shape.action_dim) if is_random(config.action_top_k) else (0,)
        observation_shape = (H, K, shape.observation_dim) if is_random(config.observation_top_k) else (0,)
        draws = [[torch.rand(size, generator=g) for g in generators] for size in (action_shape, observation_shape)]
        action_noise, observation_noise = (torch.stack(rows).to(self.model.device) for rows in draws)
        return action_noise, observation_noise


def log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability (...) in nats of `tokens` (...) under `logits` (..., V)."""
    return logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def pick(candidates: Tensor, index: Tensor) -> Tensor:
    """Of `candidates` (B, K, n, ...) those at `index` (B, K) into K * n: (B, K, ...)."""
    row = torch.arange(len(index), device=index.device)[:, None]
    return candidates.flatten(1, 2)[row, index]
