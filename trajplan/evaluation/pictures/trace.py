"""What happened in one episode and what was planned in it: the material of its pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajplan.data.info import DatasetInfo
from trajplan.errors import DataError
from trajplan.evaluation.pictures.maze import MazeMap, maze_of
from trajplan.evaluation.policy import Policy
from trajplan.evaluation.rollout import Moment


@dataclass
class Trace:
    """An observer of `trajplan.evaluation.rollout.evaluate` that remembers one episode.

    Attributes:
        policy: whose plans to remember, if it makes any.
        episode: the number of the episode.
        observations: T + 1 arrays (S,) once the episode is over.
        actions: T arrays (A,).
        rewards: T numbers.
        plans: by the step they were made at; one every plan length, so that they do not overlap.
        goal: (G,) that the policy was told at reset, or None.
        maze: the map, when the environment is a maze.
        goal_places: T + 1 places (2,) of the maze's goal.
    """

    policy: Policy
    episode: int = 0
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    plans: dict[int, Any] = field(default_factory=dict)
    goal: np.ndarray | None = None
    maze: MazeMap | None = None
    goal_places: list[np.ndarray] = field(default_factory=list)
    _newest: Any = None
    _due: int = 0

    def __call__(self, moment: Moment) -> None:
        """Remember one moment, if it belongs to the episode."""
        if moment.episode != self.episode:
            return
        if moment.step == 0:
            self.maze, self.goal = maze_of(moment.env, self.policy.info), moment.goal
        else:
            self.rewards.append(moment.reward)
        if self.maze is not None:
            self.goal_places.append(np.array(self.maze.goal_in(moment.env, moment.observation)))
        self.observations.append(moment.observation.copy())
        if moment.action is None:
            return
        self.actions.append(moment.action.copy())
        plan = current_plan(self.policy, moment.slot)
        if plan is not None and plan is not self._newest:
            self.keep(plan, moment.step)
        self._newest = plan

    def keep(self, plan: Any, step: int) -> None:
        """Remember a plan if the last one that was remembered does not reach to this step."""
        if step >= self._due:
            self.plans[step] = plan
            self._due = step + plan.observations.shape[1]


def current_plan(policy: Policy, slot: int) -> Any | None:
    """The plan behind a slot's last action, or None for a policy that makes none."""
    plans: Mapping[int, Any] = getattr(policy, "last_plans", {})
    return plans.get(slot)


def most_varying(observations: np.ndarray, count: int) -> list[int]:
    """The `count` columns of (T, S) that vary most, first the one that varies most of all."""
    return [int(dim) for dim in np.argsort(-observations.std(axis=0), kind="stable")[:count]]


def dimension_name(info: DatasetInfo, dim: int) -> str:
    """A column of the flat observation by the name of its part."""
    for part in info.observation_layout:
        if part.columns.start <= dim < part.columns.stop:
            return f"{part.name}[{dim - part.columns.start}]"
    raise DataError(f"dataset {info.id} has no observation column {dim}.")
