"""A planner as a policy of many environments at once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trajplan.data.goals import checked_goals
from trajplan.data.info import DatasetInfo
from trajplan.planners.memory import EpisodeMemory
from trajplan.planners.plan import Plan


class Planner(Protocol):
    """Plans for several environments at once; made with a model, its tokenizer and the planner's settings.

    Attributes:
        config: the settings. All have `context`, the past transitions that a plan is conditioned on, and
            `replan_every`, the steps acted from one plan before the next is made. Where they have `warm_start` and it
            is set, `plan` gets, as `previous`, the plan that each environment acted by (numpy arrays (K, ...)), or None
            in an episode's first.
    """

    config: Any

    def plan(
        self,
        observations: Tensor,
        past: Tensor,
        generators: Sequence[torch.Generator],
        goals: Tensor | None = None,
    ) -> tuple[Tensor, Plan]:
        """Plan from the present of several environments; each gets the plan it would get alone.

        Args:
            observations: (B, S) float32, flattened.
            past: (B, C, S + A + 1) float32, observations, actions and rewards of the last C transitions.
            generators: one CPU generator an environment, which all of its plan's randomness comes from.
            goals: (B, G) float32, what the columns `goal_columns` of the dataset's observations are to become, where
                the episodes have goals; given only then, so that a planner that knows no goals need not take it.

        Returns:
            The actions to take now (B, A) float32, and what was planned, in tensors (B, K, ...).
        """


class PlanningPolicy:
    """Acts by planning; implements the Policy protocol of `trajplan.evaluation.policy`.

    Args:
        planner: makes the plans.
        info: of the dataset that its model was trained on.

    Attributes:
        last_plans: by slot, the plan behind its last action.
    """

    def __init__(self, planner: Planner, info: DatasetInfo):
        self.planner = planner
        self.info = info
        self.config = planner.config
        self.episodes: dict[int, EpisodeMemory] = {}
        self.last_plans: dict[int, Plan] = {}

    def reset(self, seeds: Sequence[int], rows: Sequence[int], goals: np.ndarray | None = None) -> None:
        """Begin new episodes in environment slots `rows`, each with its own seed, and its goal of `goals` (m, G)."""
        wanted = [None] * len(rows) if goals is None else list(torch.from_numpy(checked_goals(self.info, goals)))
        for seed, row, goal in zip(seeds, rows, wanted, strict=True):
            self.episodes[int(row)] = EpisodeMemory(int(seed), self.config.context, goal)
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
        episodes = [self.episodes[int(row)] for row in rows]
        observed = torch.as_tensor(np.asarray(observations), dtype=torch.float32)
        for episode, reward in zip(episodes, rewards, strict=True):
            episode.observe_reward(float(reward))
        # Plans of one context length are made together; lengths differ only in an episode's first steps.
        groups: dict[tuple[int, bool], list[int]] = defaultdict(list)
        for index, episode in enumerate(episodes):
            if not episode.planned:
                groups[len(episode.past), episode.goal is None].append(index)
        for members in groups.values():
            self._plan([episodes[i] for i in members], observed[members], [int(rows[i]) for i in members])
        actions = [episode.act(present) for episode, present in zip(episodes, observed, strict=True)]
        return torch.stack(actions).numpy()

    def _plan(self, episodes: list[EpisodeMemory], observed: Tensor, rows: list[int]) -> None:
        width = self.info.observation_dim + self.info.action_dim + 1
        past = torch.stack([step for episode in episodes for step in episode.past] or [torch.empty(0)])
        past = past.view(len(episodes), -1, width) if past.numel() else torch.empty(len(episodes), 0, width)
        wanted = [episode.goal for episode in episodes if episode.goal is not None]
        goals = {"goals": torch.stack(wanted)} if wanted else {}
        # A planner whose settings say so begins from the last plan.
        warm = getattr(self.config, "warm_start", False)
        previous: dict[str, Any] = {"previous": [self.last_plans.get(row) for row in rows]} if warm else {}
        generators = [episode.generator for episode in episodes]
        first, plans = self.planner.plan(observed, past, generators, **goals, **previous)
        for index, (episode, row) in enumerate(zip(episodes, rows, strict=True)):
            plan = self.last_plans[row] = plans.row(index)
            tail = torch.from_numpy(plan.actions[0, 1 : self.config.replan_every])
            episode.planned = [first[index].cpu(), *tail]
