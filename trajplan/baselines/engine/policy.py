"""A trained method as a policy for many environments at once."""

from collections.abc import Sequence

import numpy as np
import torch

from trajplan.baselines.engine.method import Method
from trajplan.data.goals import checked_goals
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError
from trajplan.models.critics import DiscreteTwinQ, TwinQ
from trajplan.models.scaling import Scaling


class BaselinePolicy:
    """Acts by a method, without exploration; implements the Policy protocol of `trajplan.evaluation.policy`.

    Args:
        name: of the method in the registry.
        method: on the scaling's device.
        scaling: between the environment's observations and actions and the method's.
        info: the dataset it was trained on.
    """

    def __init__(self, name: str, method: Method, scaling: Scaling, info: DatasetInfo) -> None:
        self.name, self.method, self.scaling, self.info = name, method, scaling, info
        self.needs_goals: bool = getattr(method, "needs_goals", False)
        self._goals: dict[int, np.ndarray] = {}

    def reset(self, seeds: Sequence[int], rows: Sequence[int], goals: np.ndarray | None = None) -> None:
        """Nothing is remembered but the goals (m, G), for a method that needs them, and nothing is drawn at random."""
        if not self.needs_goals:
            return
        if goals is None:
            raise ConfigError(f"{self.name} acts for a goal, and its episode was begun without one: give it at reset.")
        for row, goal in zip(rows, checked_goals(self.info, goals), strict=True):
            self._goals[int(row)] = goal

    @torch.no_grad()
    def act(self, observations: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(m, S) float32 observations to (m, A) float32 actions; rewards are not read."""
        seen = self._seen(observations)
        actions = self.method.act(seen, *self._seen_goals(rows))
        return self.scaling.environment_actions(actions).cpu().numpy()

    @torch.no_grad()
    def predicted_values(self, observations: np.ndarray) -> np.ndarray | None:
        """What the method's smaller Q expects of its own action: (m, S) to (m,), None for a method without a twin Q.

        It is in the rewards that training saw: transformed, and with what the method adds to them, such as the
        entropy of later steps in soft actor-critic.
        """
        critic = getattr(self.method, "critic", None)
        if not isinstance(critic, TwinQ | DiscreteTwinQ):
            return None
        seen = self._seen(observations)
        return critic(seen, self.method.act(seen)).amin(0).cpu().numpy()

    def _seen_goals(self, rows: np.ndarray) -> list[torch.Tensor]:
        """The goals (m, G) of the slots, for a method that needs them."""
        if not self.needs_goals:
            return []
        goals = torch.from_numpy(np.stack([self._goals[int(row)] for row in rows]))
        return [self.scaling.goals(goals.to(self.scaling.mean.device), self.info.goal_columns or ())]

    def _seen(self, observations: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(np.ascontiguousarray(observations, np.float32))
        return self.scaling.observations(values.to(self.scaling.mean.device))
