"""A trained method as a policy for many environments at once."""

from collections.abc import Sequence

import numpy as np
import torch

from trajplan.baselines.method import Method
from trajplan.baselines.scaling import Scaling
from trajplan.data.info import DatasetInfo


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

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        """Nothing is remembered from step to step, and nothing is drawn at random."""

    @torch.no_grad()
    def act(self, observations: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(m, S) float32 observations to (m, A) float32 actions; rewards and rows are not read."""
        seen = torch.from_numpy(np.ascontiguousarray(observations, np.float32)).to(self.scaling.mean.device)
        actions = self.method.act(self.scaling.observations(seen))
        return self.scaling.environment_actions(actions).cpu().numpy()
