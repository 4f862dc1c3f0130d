"""A Trajectory Transformer and its beam search as a controller of many environments at once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trajplan.data.info import DatasetInfo
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.beam_search import BeamPlans, BeamSearch
from trajplan.planners.config import BeamSearchConfig
from trajplan.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, repr=False)
class Plan:
    """All kept beams of one environment's plan, best first, as numpy arrays.

    Attributes:
        observations: (K, H, S) float32; the first is the observation planned from.
        actions: (K, H, A) float32.
        rewards: (K, H) predicted rewards.
        returns: (K, H) predicted returns-to-go.
        scores: (K,) predicted discounted returns.
        alive: (K, H) False after a predicted end.
        log_likelihood: (K,) of the planned tokens up to a beam's end, in nats.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    returns: np.ndarray
    scores: np.ndarray
    alive: np.ndarray
    log_likelihood: np.ndarray

    def __repr__(self) -> str:
        beams, horizon = self.rewards.shape
        first = np.array2string(self.actions[0, 0], precision=3, separator=", ")
        return (
            f"Plan: {beams} beams of {horizon} steps, the best first\n"
            f"  best score      {self.scores[0]:.2f}, the last one's {self.scores[-1]:.2f}\n"
            f"  first action    {first}\n"
            f"  log-likelihood  {self.log_likelihood[0]:.2f} nats, of the best beam's tokens"
        )


@dataclass
class Slot:
    """One environment's episode so far: what the next plan is conditioned on."""

    generator: torch.Generator
    context: list[torch.Tensor]
    """Tokens (J,) of past transitions, oldest first, at most `config.context`."""
    pending: torch.Tensor | None = None
    """Observation and action tokens (S + A,) of the last step, whose reward is not known yet."""
    planned: list[torch.Tensor] | None = None
    """Actions (A,) of the last plan that are still to be acted."""


class TrajectoryController:
    """Acts by planning; implements the Policy protocol of `trajplan.evaluation.policy`.

    Args:
        model: the trained transformer.
        tokenizer: the one it was trained with.
        info: the dataset it was trained on.
        config: settings of the beam search.
    """

    def __init__(self, model: TrajectoryTransformer, tokenizer: Tokenizer, info: DatasetInfo, config: BeamSearchConfig):
        self.info = info
        self.config = config
        self.search = BeamSearch(model, tokenizer, config)
        self.tokenizer = tokenizer.to("cpu")
        self.slots: dict[int, Slot] = {}
        self.last_plans: dict[int, Plan] = {}

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        """Begin new episodes in environment slots `rows`, each with its own seed."""
        for seed, row in zip(seeds, rows, strict=True):
            self.slots[int(row)] = Slot(torch.Generator().manual_seed(int(seed)), [])
            self.last_plans.pop(int(row), None)

    def act(self, observations: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The next actions of the environments in slots `rows`.

        Args:
            observations: (m, S) float32, flattened.
            rewards: (m,) what each slot's last action earned; ignored at a slot's first step.
            rows: (m,) slot numbers, each begun by `reset`.

        Returns:
            (m, A) float32.
        """
        slots = [self.slots[int(row)] for row in rows]
        observed = torch.as_tensor(np.asarray(observations), dtype=torch.float32)
        for slot, reward in zip(slots, rewards, strict=True):
            self._remember(slot, float(reward))
        waiting = [index for index, slot in enumerate(slots) if not slot.planned]
        # Plans of one context length are made together; lengths differ only in an episode's first steps.
        groups: dict[int, list[int]] = defaultdict(list)
        for index in waiting:
            groups[len(slots[index].context)].append(index)
        for length, members in groups.items():
            self._plan([slots[i] for i in members], observed[members], length, [int(rows[i]) for i in members])
        actions = torch.stack([slot.planned.pop(0) for slot in slots if slot.planned])
        self._await_reward(slots, observed, actions)
        return actions.numpy()

    def _plan(self, slots: list[Slot], observed: torch.Tensor, length: int, rows: list[int]) -> None:
        J = self.tokenizer.num_dims
        context = torch.stack([token for slot in slots for token in slot.context] or [torch.empty(0)])
        context = context.view(len(slots), length, J).long()
        _, plans = self.search.plan(observed, context, [slot.generator for slot in slots])
        actions = self.search.actions(plans).cpu()
        for index, (slot, row) in enumerate(zip(slots, rows, strict=True)):
            slot.planned = list(actions[index, 0, : self.config.replan_every])
            self.last_plans[row] = self._export(plans, actions, index)

    def _export(self, plans: BeamPlans, actions: torch.Tensor, index: int) -> Plan:
        return Plan(
            observations=self.search.observations(plans)[index].cpu().numpy(),
            actions=actions[index].numpy(),
            rewards=plans.rewards[index].cpu().numpy(),
            returns=plans.returns[index].cpu().numpy(),
            scores=plans.scores[index].cpu().numpy(),
            alive=plans.alive[index].cpu().numpy(),
            log_likelihood=plans.log_likelihood[index].cpu().numpy(),
        )

    def _remember(self, slot: Slot, reward: float) -> None:
        """Complete the pending transition with its reward and keep the newest `config.context` ones."""
        if slot.pending is None or self.config.context == 0:
            return
        dim = self.tokenizer.num_dims - 2
        token = self.tokenizer.encode(torch.tensor([reward]), slice(dim, dim + 1))
        # The return-to-go is not known while acting; the model reads a constant in its place.
        slot.context.append(torch.cat([slot.pending, token, token.new_zeros(1)]))
        del slot.context[: -self.config.context]

    def _await_reward(self, slots: list[Slot], observed: torch.Tensor, actions: torch.Tensor) -> None:
        done = torch.cat([observed, actions], 1)
        for slot, tokens in zip(slots, self.tokenizer.encode(done, slice(0, done.shape[1])), strict=True):
            slot.pending = tokens
