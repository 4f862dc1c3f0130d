"""A trained method as a policy for many environments at once."""

from collections.abc import Sequence

import numpy as np
import torch

from trajplan.baselines.engine.method import Method
from trajplan.data.info import DatasetInfo
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

    def reset(self, seeds: Sequence[int], rows: Sequence[int], goals: np.ndarray | None = None) -> None:
        """Nothing is remembered from step to step, and nothing is drawn at random."""

    @torch.no_grad()
    def act(self, observations: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(m, S) float32 observations to (m, A) float32 actions; rewards and rows are not read."""
        actions = self.method.act(self._seen(observations))
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

    def _seen(self, observations: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(np.ascontiguousarray(observations, np.float32))
        return self.scaling.observations(values.to(self.scaling.mean.device))
