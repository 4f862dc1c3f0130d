"""An ensemble of probabilistic networks of an environment's dynamics (Chua et al. 2018; Janner et al. 2019).

Every member gives a Gaussian over the change of the observation and the reward. Observations, actions and rewards are
in the environment's own units, inside and out; the networks see them standardised.

Shapes: M members, K elites, B batch, S observation_dim, A action_dim, I = S + A inputs, D = S + 1 targets (the change
of each observation entry, then the reward).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trajplan.models.behaviour import BehaviourPrior
from trajplan.models.networks import EnsembleMLP
from trajplan.models.termination import Rule

Uncertainty = Literal["max-deviation", "disagreement"]

# The widest and narrowest log-variance (of standardised targets) at the start; both are learned, held in by BOUND_LOSS,
# which the public code weighs against the sum of the members' losses, as they share one pair of bounds.
LOG_VARIANCE = (-10.0, 0.5)
BOUND_LOSS = 0.01
# L2 decay of the weights of the first hidden layers; of later hidden ones the last; then of the output layer.
HIDDEN_DECAY, OUTPUT_DECAY = (2.5e-5, 5e-5, 7.5e-5), 1e-4
SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Prediction:
    """What members say of B transitions.

    Attributes:
        mean, std: (M, B, D) of the Gaussian.
        end: (M, B) log-odds of a terminal; None without a terminal head.
    """

    mean: Tensor
    std: Tensor
    end: Tensor | None


@dataclass(frozen=True)
class Step:
    """One step of B states, sampled or expected.

    Attributes:
        next_observations: (B, S).
        rewards: (B,).
        terminations: (B,) bool.
        uncertainty: (B,), or None if it was not asked for.
        log_likelihood: (B,) in nats, likewise.
    """

    next_observations: Tensor
    rewards: Tensor
    terminations: Tensor
    uncertainty: Tensor | None
    log_likelihood: Tensor | None = None


class DynamicsEnsemble(nn.Module):
    """M networks in one batched product a layer, and which K of them are the elites.

    Args:
        observation_dim, action_dim: S and A.
        members, elites: M and K; until elites are chosen they are the first ones.
        hidden: widths of the hidden layers.
        terminal_head: whether to learn when an episode ends, for environments whose rule is not known.

    Attributes:
        rule: decides when an episode ends, set by whoever knows the environment; it goes before a terminal head.
        elites: (K,) int64, the numbers of the chosen members.
        prior: what the data's policies do, where it was learned beside; no part of what is trained here.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    low: Tensor
    high: Tensor
    elites: Tensor

    def __init__(
        self, observation_dim: int, action_dim: int, members: int, elites: int, hidden: tuple[int, ...],
        terminal_head: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        inputs, targets = observation_dim + action_dim, observation_dim + 1
        self.terminal_head = terminal_head
        self.rule: Rule | None = None
        self.prior: BehaviourPrior | None = None
        self.networks = EnsembleMLP(members, inputs, hidden, 2 * targets + terminal_head, functional.silu)
        self.min_log_variance = nn.Parameter(torch.full((members, 1, targets), LOG_VARIANCE[0]))
        self.max_log_variance = nn.Parameter(torch.full((members, 1, targets), LOG_VARIANCE[1]))
        for name, size in (("input", inputs), ("target", targets)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        self.register_buffer("low", torch.full((targets,), -torch.inf))
        self.register_buffer("high", torch.full((targets,), torch.inf))
        self.register_buffer("elites", torch.arange(elites))

    @torch.no_grad()
    def fit_scales(self, inputs: Tensor, targets: Tensor) -> None:
        """Take the scales of inputs (N, I) and targets (N, D), and the range that predictions stay in.

        Sampled states and rewards are clipped to the data's range, widened by its own width on both sides: a long
        rollout that leaves it has nothing to do with the data any more, and only runs to infinity.
        """
        for name, values in (("input", inputs), ("target", targets)):
            getattr(self, f"{name}_mean").copy_(values.double().mean(0))
            getattr(self, f"{name}_std").copy_(values.double().std(0, correction=0))
        # A constant input says nothing, whatever it is divided by; a constant target has to stay constant.
        self.input_std[self.input_std < SMALLEST_STD] = 1
        self.target_std.clamp_(min=SMALLEST_STD)
        size = targets.shape[-1] - 1
        outcomes = torch.cat([inputs[:, :size] + targets[:, :size], targets[:, size:]], dim=-1)
        low, high = outcomes.amin(0), outcomes.amax(0)
        self.low.copy_(low - (high - low))
        self.high.copy_(high + (high - low))

    def standardised(self, inputs: Tensor, chosen: Tensor | None = None) -> Prediction:
        """The Gaussians of standardised targets: inputs (B, I) or (M, B, I), of the members `chosen` or of all."""
        outputs = self.networks((inputs - self.input_mean) / self.input_std, chosen)
        size = len(self.target_mean)
        bounds = (self.min_log_variance, self.max_log_variance)
        low, high = (bound if chosen is None else bound[chosen] for bound in bounds)
        log_variance = high - functional.softplus(high - outputs[..., size : 2 * size])
        log_variance = low + functional.softplus(log_variance - low)
        end = outputs[..., -1] if self.terminal_head else None
        return Prediction(outputs[..., :size], torch.exp(0.5 * log_variance), end)

    def predict(self, observations: Tensor, actions: Tensor, chosen: Tensor | None = None) -> Prediction:
        """The Gaussians in the environment's units: (B, S) and (B, A), or (M, B, ...), of the members `chosen`."""
        prediction = self.standardised(torch.cat([observations, actions], dim=-1), chosen)
        mean = self.target_mean + prediction.mean * self.target_std
        return Prediction(mean, prediction.std * self.target_std, prediction.end)

    def losses(self, inputs: Tensor, targets: Tensor, terminations: Tensor) -> Tensor:
        """What every member is trained on, (M,): twice the mean negative log-likelihood without its constant.

        The terminal head adds its cross-entropy; the bounds of the log-variance are drawn together, each member's by a
        share of `BOUND_LOSS`: against the whole of it, a mean over many dimensions cannot hold them apart.

        Args:
            inputs: (M, B, I).
            targets: (M, B, D).
            terminations: (M, B) bool.
        """
        prediction = self.standardised(inputs)
        error = (targets - self.target_mean) / self.target_std - prediction.mean
        likelihood = (error / prediction.std).square() + 2 * prediction.std.log()
        width = (self.max_log_variance - self.min_log_variance).sum((1, 2))
        bounds = BOUND_LOSS / len(width) * width
        return likelihood.mean((1, 2)) + bounds + self._end_loss(prediction, terminations)

    def held_out_losses(self, inputs: Tensor, targets: Tensor, terminations: Tensor) -> Tensor:
        """What training stops by, (M,): the mean squared error of standardised targets, and the terminal head's loss.

        Arguments as for `losses`, the same for all members: (B, I), (B, D) and (B,).
        """
        prediction = self.standardised(inputs)
        error = (targets - self.target_mean) / self.target_std - prediction.mean
        return error.square().mean((1, 2)) + self._end_loss(prediction, terminations)

    def _end_loss(self, prediction: Prediction, terminations: Tensor) -> Tensor | float:
        if prediction.end is None:
            return 0.0
        wanted = terminations.to(prediction.end.dtype).expand_as(prediction.end)
        return functional.binary_cross_entropy_with_logits(prediction.end, wanted, reduction="none").mean(1)

    def parameter_groups(self) -> list[dict[str, object]]:
        """The parameters for an optimiser, with the L2 decay of each layer's weights."""
        *hidden, output = self.networks.weights
        decays = [HIDDEN_DECAY[min(number, len(HIDDEN_DECAY) - 1)] for number in range(len(hidden))]
        groups: list[dict[str, object]] = [
            {"params": [weight], "weight_decay": decay}
            for weight, decay in zip([*hidden, output], [*decays, OUTPUT_DECAY], strict=True)
        ]
        free: list[nn.Parameter] = [*self.networks.biases, self.min_log_variance, self.max_log_variance]
        return [*groups, {"params": free, "weight_decay": 0.0}]

    @torch.no_grad()
    def step(self, observations: Tensor, actions: Tensor, uncertainty: Uncertainty | None = None) -> Step:
        """Sample what follows from (B, S) and (B, A), of an elite that is drawn for every row anew."""
        if uncertainty is None:
            mean, std, end = self._of_one_elite_each(observations, actions)
            doubt = None
        else:
            prediction = self.predict(observations, actions, self.elites)
            doubt = uncertainty_of(prediction, uncertainty)
            drawn = torch.randint(len(self.elites), (len(observations),), device=observations.device)
            rows = torch.arange(len(observations), device=observations.device)
            mean, std = prediction.mean[drawn, rows], prediction.std[drawn, rows]
            end = None if prediction.end is None else prediction.end[drawn, rows]
        values = mean + std * torch.randn_like(mean)
        next_observations = (observations + values[:, :-1]).clamp(self.low[:-1], self.high[:-1])
        rewards = values[:, -1].clamp(self.low[-1], self.high[-1])
        ended = None if end is None else torch.rand_like(end) < torch.sigmoid(end)
        return Step(next_observations, rewards, self._terminations(next_observations, ended), doubt)

    @torch.no_grad()
    def expected(
        self,
        observations: Tensor,
        actions: Tensor,
        uncertainty: Uncertainty | None = None,
        *,
        followed: Tensor | None = None,
        likelihood: bool = False,
    ) -> Step:
        """The mean of what follows from (B, S) and (B, A), without noise; its reward is the mean of all elites'.

        Args:
            observations, actions: in the environment's units.
            uncertainty: the kind that is asked for.
            followed: (B,) int64, of which elite's mean the next observation is; None: of the mean of all.
            likelihood: whether to give the log-density of that step among the elites, as an even mixture.
        """
        prediction = self.predict(observations, actions, self.elites)
        doubt = None if uncertainty is None else uncertainty_of(prediction, uncertainty)
        mean = prediction.mean.mean(0)
        rows = torch.arange(len(mean), device=mean.device)
        change = mean if followed is None else prediction.mean[followed, rows]
        end = None if prediction.end is None else prediction.end.mean(0)
        if followed is not None and prediction.end is not None:
            end = prediction.end[followed, rows]
        next_observations = (observations + change[:, :-1]).clamp(self.low[:-1], self.high[:-1])
        rewards = mean[:, -1].clamp(self.low[-1], self.high[-1])
        terminations = self._terminations(next_observations, None if end is None else end > 0)
        density = None
        if likelihood:
            reached = torch.cat([next_observations - observations, rewards[:, None]], dim=-1)
            density = log_density(prediction, reached)
        return Step(next_observations, rewards, terminations, doubt, density)

    def _of_one_elite_each(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        # Shuffled and dealt to the elites in equal hands: a Kth of the work of asking every elite about every row. The
        # elites are shuffled too, as few rows fill the first hands only.
        rows, elites = len(observations), len(self.elites)
        each = math.ceil(rows / elites)
        order = torch.randperm(rows, device=observations.device)
        hands = order[torch.arange(elites * each, device=order.device) % rows].view(elites, each)
        shuffled = self.elites[torch.randperm(elites, device=order.device)]
        prediction = self.predict(observations[hands], actions[hands], shuffled)
        back = torch.argsort(order)
        mean, std = (part.flatten(0, 1)[back] for part in (prediction.mean, prediction.std))
        return mean, std, None if prediction.end is None else prediction.end.flatten()[back]

    def _terminations(self, next_observations: Tensor, ended: Tensor | None) -> Tensor:
        """By the rule where there is one, or else by what the terminal head says."""
        if self.rule is not None:
            return self.rule(next_observations)
        if ended is None:
            return torch.zeros(len(next_observations), dtype=torch.bool, device=next_observations.device)
        return ended


def log_density(prediction: Prediction, values: Tensor) -> Tensor:
    """Log-density (B,) in nats of values (B, D) under the even mixture of the members' Gaussians."""
    of_each = torch.distributions.Normal(prediction.mean, prediction.std, validate_args=False).log_prob(values).sum(-1)
    return of_each.logsumexp(0) - math.log(len(of_each))


def uncertainty_of(prediction: Prediction, kind: Uncertainty) -> Tensor:
    """How little the members (the elites) are to be trusted, (B,), in the environment's units.

    Args:
        prediction: of (M, B, D).
        kind: `max-deviation` is the largest norm of a member's standard deviations (Yu et al. 2020); `disagreement` the
            largest distance of a member's mean from the mean of all.
    """
    if kind == "max-deviation":
        return prediction.std.norm(dim=-1).amax(0)
    return (prediction.mean - prediction.mean.mean(0)).norm(dim=-1).amax(0)
