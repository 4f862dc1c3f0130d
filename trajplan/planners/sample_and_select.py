"""Sample and select: trajectories drawn from the model, the best by predicted reward and return.

The simplest planner that maximises reward, without search (random shooting in the model's own distribution, as in
Janner, Li, Levine 2021, without the beam). Shapes: B environments, K trajectories, H planned transitions, C context
transitions, S observation dimensions, A action dimensions, J = S + A + 2 tokens a transition, V bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajplan.config import option, require
from trajplan.models.critic import Critic
from trajplan.models.decoder import CachedDecoder, Decoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.plan import Plan
from trajplan.planners.sampling import sample
from trajplan.planners.scores import check_critic, goals_for, state_values
from trajplan.planners.settings import check_window
from trajplan.planners.tokens import (
    DecoderMaker,
    TokenPlans,
    bind_decoder,
    draw_noise,
    log_probability,
    next_transition,
    plan_tokens,
    read_values,
)
from trajplan.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SampleAndSelectConfig:
    """Sample trajectories from the model, and take the one of the greatest predicted reward and return."""

    horizon: int = option(15, "transitions of each trajectory")
    samples: int = option(128, "trajectories drawn for a plan")
    context: int = option(5, "past transitions that the plan is conditioned on")
    discount: float = option(0.99, "discount of predicted rewards; the one the model was trained with")
    top_k: int | None = option(None, "draw tokens among the k likeliest (none: all)")
    cdf: float | None = option(None, "draw tokens among the likeliest up to this mass (none: all)")
    temperature: float = option(1.0, "temperature of the tokens")
    critic: str | None = option(
        None, "folder of a trained baseline whose value of the last state ends a score (none: the model's return-to-go)"
    )
    replan_every: int = option(1, "steps acted from one plan before the next is made")

    def __post_init__(self) -> None:
        for name in ("horizon", "samples", "replan_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.context >= 0, "context", self.context, "be 0 or more past transitions")
        require(0 < self.discount <= 1, "discount", self.discount, "be above 0 and at most 1")
        require(
            self.replan_every <= self.horizon, "replan_every", self.replan_every, f"be at most {self.horizon} steps"
        )
        # The likeliest token alone would make all trajectories one.
        require(self.top_k is None or self.top_k >= 2, "top_k", self.top_k, "be at least 2, or none")
        require(self.cdf is None or 0 < self.cdf <= 1, "cdf", self.cdf, "be above 0 and at most 1, or none")
        require(self.temperature > 0, "temperature", self.temperature, "be above 0")


class SampleAndSelect:
    """Draws trajectories and ranks them; a plan's score is the predicted discounted return.

    With a critic, its value of the state that a trajectory leads to stands for the predicted return-to-go.

    Args:
        model: in evaluation mode; its device is where plans are made.
        tokenizer: the one the model was trained with.
        config: settings of the planner.
        decoder: how logits are computed.
        critic: what the setting of this name stands for, on the model's device.
    """

    def __init__(
        self,
        model: TrajectoryTransformer,
        tokenizer: Tokenizer,
        config: SampleAndSelectConfig,
        decoder: DecoderMaker = CachedDecoder,
        *,
        critic: Critic | None = None,
    ):
        check_window(config, model.config.window)
        check_critic(critic, model.config.window)
        self.model = model
        self.tokenizer = tokenizer.to(model.device)
        self.config, self.critic = config, critic
        self._search = bind_decoder(self.search, model, decoder)

    def plan(
        self,
        observations: Tensor,
        past: Tensor,
        generators: Sequence[torch.Generator],
        goals: Tensor | None = None,
    ) -> tuple[Tensor, Plan]:
        """See `trajplan.planners.controller.Planner`."""
        config = self.config
        smaller = f"horizon ({config.horizon}) or samples ({config.samples})"
        aim = goals_for(self.critic, goals, self.model.device)
        return plan_tokens(
            *(self._search, self.model, self.tokenizer, observations, past),
            noise=lambda: (*self._noise(generators), *aim),
            smaller=smaller,
            goals=goals,
        )

    @torch.inference_mode()
    def search(self, decoder: Decoder, prefix: Tensor, noise: Tensor, goals: Tensor | None = None) -> TokenPlans:
        """Draw and rank, of tensors alone and without a wait for the device.

        Args:
            decoder: where logits come from.
            prefix: (B, G + C * J + S) int64, the goal (if the model has it), the context, the present.
            noise: (B, H, K, S + A) uniform in [0, 1).
            goals: (B, G) float32, where the critic needs them.
        """
        config, shape = self.config, self.model.config
        K, H = config.samples, config.horizon
        S, A, J, V = shape.observation_dim, shape.action_dim, shape.transition_dim, shape.bins
        past = prefix[:, shape.goal_dim : -S].unflatten(1, (-1, J))[:, None].expand(-1, K, -1, J)
        in_window = past.shape[2] + 1
        plans = TokenPlans.begin(prefix[:, -S:], K, H, J)
        logits = decoder.begin(prefix, K, 1)[:, None].expand(-1, K, -1)
        for step in range(H):
            live = plans.alive[:, :, step]
            for dim in range(S, S + A):
                logits = self._append(decoder, plans, live, logits, noise, step, dim)
            read_values(decoder, self.tokenizer, plans, logits, live, step)
            if step + 1 == H:
                break
            planned = plans.tokens[:, :, : step + 1]
            logits, in_window = next_transition(decoder, past, planned, in_window, shape.window)
            for dim in range(S):
                logits = self._append(decoder, plans, live, logits, noise, step + 1, dim)
                # A stop token is legal in the first dimension alone; what follows it is no part of the plan.
                live = live & (plans.tokens[:, :, step + 1, dim] != V)
            plans.end_where(live, step)
        if self.critic is not None:
            planned, live = plans.tokens, plans.alive[:, :, -1]
            logits, _ = next_transition(decoder, past, planned, in_window, shape.window)
            states = []
            for dim in range(S):
                # The noise of the first state, which was not drawn.
                states.append(self._draw(logits, noise, 0, dim))
                live = live & (states[-1] != V)
                logits = decoder.advance(states[-1])
            plans.returns[..., -1] = state_values(self.critic, self.tokenizer, torch.stack(states, -1), goals) * live
        discounts = config.discount ** torch.arange(H + 1, device=prefix.device)
        plans.scores = (plans.rewards * discounts[:H]).sum(-1) + discounts[H] * plans.returns[..., -1]
        return plans.reorder(plans.scores.argsort(stable=True, dim=-1, descending=True))

    def _noise(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        config, shape = self.config, self.model.config
        size = (config.horizon, config.samples, shape.observation_dim + shape.action_dim)
        return [draw_noise(generators, size, self.model.device)]

    def _append(
        self, decoder: Decoder, plans: TokenPlans, live: Tensor, logits: Tensor, noise: Tensor, step: int, dim: int
    ) -> Tensor:
        """Draw one token of every trajectory; logits of the next."""
        token = self._draw(logits, noise, step, dim)
        plans.log_likelihood += log_probability(logits, token) * live
        plans.tokens[:, :, step, dim] = token
        return decoder.advance(token)

    def _draw(self, logits: Tensor, noise: Tensor, step: int, dim: int) -> Tensor:
        config = self.config
        return sample(
            logits, noise[:, step, :, dim], top_k=config.top_k, cdf=config.cdf, temperature=config.temperature
        )
