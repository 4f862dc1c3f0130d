"""What is remembered of an episode while a planner acts in it."""

from collections import deque

import torch
from torch import Tensor


class EpisodeMemory:
    """The past of one episode that plans are conditioned on, the action whose reward is awaited, and the plan's tail.

    Args:
        seed: of the episode.
        context: past transitions to keep.
        goal: (G,) float32 that the episode is to reach, or None.
    """

    def __init__(self, seed: int, context: int, goal: Tensor | None = None) -> None:
        self.goal = goal
        self.generator = torch.Generator().manual_seed(seed)
        self.past: deque[Tensor] = deque(maxlen=context)
        """(S + A + 1,) float32 observation, action and reward of each transition, oldest first."""
        self.planned: list[Tensor] = []
        """(A,) float32 actions of the last plan that are still to be acted."""
        self._pending: Tensor | None = None

    def observe_reward(self, reward: float) -> None:
        """Complete the transition of the last action; before the first there is none, and nothing happens."""
        if self._pending is not None:
            self.past.append(torch.cat([self._pending, torch.tensor([reward], dtype=torch.float32)]))
            self._pending = None

    def act(self, observation: Tensor) -> Tensor:
        """The next planned action (A,), taken at `observation` (S,)."""
        action = self.planned.pop(0)
        self._pending = torch.cat([observation, action])
        return action
