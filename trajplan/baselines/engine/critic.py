"""The values of a trained baseline as a critic, which implements `trajplan.models.critic.Critic`."""

from pathlib import Path

import torch
from torch import Tensor

from trajplan.baselines.engine.checkpoint import load_baseline, saved_settings
from trajplan.baselines.engine.method import Method
from trajplan.data.info import DatasetInfo
from trajplan.errors import CheckpointError
from trajplan.files import read_json
from trajplan.models.scaling import Scaling


class BaselineCritic:
    """V and Q of a method in the units of environment and data, asked of its networks as they were trained.

    A method has a twin Q as `critic`, or V as `value`, or both; without V, the value of a state is the Q of what the
    method does there. One that `needs_goals` takes them, standardised as the observation's columns are, as the last
    argument of either, and `value` may be a twin, too. Values hold what a method adds to the rewards, such as the
    entropy of later steps in soft actor-critic or the penalty of MOPO.

    Args:
        method: in evaluation mode, on the scaling's device.
        scaling: between the environment's units and the method's.
        info: the dataset it was trained on.
        discount: of the method.
        reward_scale: what training multiplied every reward by.
    """

    def __init__(
        self, method: Method, scaling: Scaling, info: DatasetInfo, discount: float, reward_scale: float
    ) -> None:
        self.method, self.scaling, self.info = method, scaling, info
        self.discount, self.reward_scale = discount, reward_scale
        self.needs_goals: bool = getattr(method, "needs_goals", False)
        self._value, self._q = (getattr(method, name, None) for name in ("value", "critic"))
        self.has_q = self._q is not None

    @torch.no_grad()
    def values(self, observations: Tensor, goals: Tensor | None = None) -> Tensor:
        """See `Critic.values`."""
        seen, aim = self.scaling.observations(observations), self._goals(goals)
        if self._value is not None:
            return self._unscaled(self._value(seen, *aim))
        assert self._q is not None
        return self._unscaled(self._q(seen, self.method.act(seen, *aim), *aim))

    @torch.no_grad()
    def q(self, observations: Tensor, actions: Tensor, goals: Tensor | None = None) -> Tensor:
        """See `Critic.q`."""
        assert self._q is not None
        if self.info.is_discrete:
            actions = actions.round()
        seen = self.scaling.observations(observations)
        return self._unscaled(self._q(seen, self.scaling.actions(actions), *self._goals(goals)))

    def _goals(self, goals: Tensor | None) -> list[Tensor]:
        if not self.needs_goals:
            return []
        assert goals is not None
        return [self.scaling.goals(goals, self.info.goal_columns or ())]

    def _unscaled(self, values: Tensor) -> Tensor:
        """Values (B,), or of a twin (2, B), in the data's rewards: (B,)."""
        return (values.amin(0) if values.dim() > 1 else values) / self.reward_scale


def critic_of(folder: str | Path, device: torch.device | str = "cpu") -> BaselineCritic:
    """The critic in the folder of a trained baseline.

    Args:
        folder: written by `trajplan baseline`.
        device: where it is asked.

    Raises:
        CheckpointError: if there is no such folder, it is incomplete or damaged, its method has no values, or its
            rewards were shifted: how far that moves a value depends on when an episode ends.
    """
    folder = Path(folder).expanduser()
    policy = load_baseline(folder, device)
    _, config, _ = saved_settings(folder)
    if not any(hasattr(policy.method, name) for name in ("value", "critic")):
        raise CheckpointError(f"{folder} holds {policy.name}, which learns no values: a critic needs V or Q.")
    # Folders from before rewards could be transformed say nothing of it.
    transform = read_json(folder / "dataset.json").get("reward_transform", {})
    if transform.get("shift", 0.0) != 0:
        raise CheckpointError(
            f"{folder} was trained with --reward-transform {transform['name']}, and values of shifted rewards cannot "
            "be turned into the data's: train the critic with none or return-range."
        )
    return BaselineCritic(policy.method, policy.scaling, policy.info, config.discount, transform.get("scale", 1.0))
