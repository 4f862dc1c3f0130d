"""Branched rollouts of a policy in a dynamics model (Janner et al. 2019), and the batches that mix them with data.

Everything is tensors on the run's device, from the data's states to the batch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.data.transitions import Batch, Transitions
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.policies import Policy
from trajplan.models.scaling import Scaling

PARTS = ("observations", "actions", "rewards", "next_observations", "terminations")


class RolloutBuffer:
    """Transitions of the newest rollouts in a preallocated ring.

    Args:
        capacity: transitions of all rollouts that are kept, if none ends early.
        keep: how many times of rolling out are kept.
        observation_dim, action_dim: S and A.
        device: where the tensors lie.
    """

    def __init__(self, capacity: int, keep: int, observation_dim: int, action_dim: int, device: torch.device) -> None:
        self.capacity, self.keep = capacity, keep
        self.batch = Batch(
            observations=torch.zeros(capacity, observation_dim, device=device),
            actions=torch.zeros(capacity, action_dim, device=device),
            rewards=torch.zeros(capacity, device=device),
            next_observations=torch.zeros(capacity, observation_dim, device=device),
            terminations=torch.zeros(capacity, dtype=torch.bool, device=device),
        )
        self.counts: list[int] = []
        self._end = 0
        # Where the kept transitions begin, and how many there are, where a captured update can read them.
        self._kept = torch.zeros(2, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        """Transitions kept."""
        return sum(self.counts)

    def begin(self) -> None:
        """Start another time of rolling out; the oldest is forgotten."""
        self.counts = [*self.counts, 0][-self.keep :]

    def extend(self, batch: Batch) -> None:
        """Append transitions."""
        count = len(batch.rewards)
        rows = (self._end + torch.arange(count, device=batch.rewards.device)) % self.capacity
        for name in PARTS:
            getattr(self.batch, name).index_copy_(0, rows, getattr(batch, name))
        self._end = (self._end + count) % self.capacity
        self.counts[-1] += count
        self._kept.copy_(torch.tensor([self._end - len(self), len(self)]))

    def sample(self, size: int) -> Batch:
        """A batch drawn uniformly with replacement."""
        # In float64, which has room for every row number, and without asking the device for the count.
        drawn = torch.rand(size, dtype=torch.float64, device=self._kept.device) * self._kept[1]
        return self._rows((self._kept[0] + drawn.long()) % self.capacity)

    def state(self) -> dict[str, Tensor]:
        """What is kept, oldest first, for a checkpoint."""
        kept = self._rows((self._kept[0] + torch.arange(len(self), device=self._kept.device)) % self.capacity)
        return {name: getattr(kept, name) for name in PARTS} | {"counts": torch.tensor(self.counts)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; KeyError or RuntimeError if it does not fit."""
        device = self._kept.device
        self.counts, self._end = [0], 0
        self.extend(Batch(**{name: state[name].to(device) for name in PARTS}))
        self.counts = state["counts"].tolist()

    def _rows(self, rows: Tensor) -> Batch:
        return Batch(**{name: getattr(self.batch, name).index_select(0, rows) for name in PARTS})


class ModelRollouts:
    """Rolls a policy out in a model now and then, and gives batches of the data and of these rollouts.

    Args:
        dynamics: trained, on the device.
        scaling: between the environment's units, which the model speaks, and the method's.
        transform: scale and shift of rewards, as the method sees those of the data.
        transitions: the data as the method sees it.
        config: settings.
    """

    def __init__(
        self,
        dynamics: DynamicsEnsemble,
        scaling: Scaling,
        transform: tuple[float, float],
        transitions: Transitions,
        config: ModelBasedConfig,
    ) -> None:
        self.dynamics, self.scaling, self.transform = dynamics, scaling, transform
        self.transitions, self.config = transitions, config
        row = transitions.gather(torch.zeros(1, dtype=torch.int64, device=scaling.mean.device))
        capacity = config.rollout_starts * config.rollout_length * config.rollout_keep
        sizes = (row.observations.shape[1], row.actions.shape[1])
        self.buffer = RolloutBuffer(capacity, config.rollout_keep, *sizes, scaling.mean.device)

    @torch.no_grad()
    def roll_out(self, policy: Policy) -> None:
        """Branch off from observations of the data, sampling the policy's actions; a terminal ends a rollout."""
        self.buffer.begin()
        seen = self.transitions.sample(self.config.rollout_starts).observations
        states = self.scaling.environment_observations(seen)
        scale, shift = self.transform
        for _ in range(self.config.rollout_length):
            actions = policy(seen).sample()[0]
            following, rewards, terminations = self.penalised_step(states, actions)
            next_seen = self.scaling.observations(following)
            self.buffer.extend(Batch(seen, actions, scale * rewards + shift, next_seen, terminations))
            alive = ~terminations
            states, seen = following[alive], next_seen[alive]
            if not len(states):
                break

    def penalised_step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A sampled step: next states, rewards less the penalty, terminations.

        Args:
            states: (B, S) in the environment's units.
            actions: (B, A) as the method gives them.
        """
        kind, weight = self.config.reward_penalty or (None, 0.0)
        step = self.dynamics.step(states, self.scaling.environment_actions(actions), kind if weight else None)
        rewards = step.rewards if step.uncertainty is None else step.rewards - weight * step.uncertainty
        return step.next_observations, rewards, step.terminations

    def mixed_batch(self, size: int) -> Batch:
        """`ModelBasedConfig.real_rows` transitions of the data, then as many of the rollouts as are missing."""
        real = self.config.real_rows(size)
        data, model = self.transitions.sample(real), self.buffer.sample(size - real)
        return Batch(**{name: torch.cat([getattr(data, name), getattr(model, name)]) for name in PARTS})
