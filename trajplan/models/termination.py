"""When the known environments end an episode, as rules over observations, so that a model's rollouts end there too.

The rules and their numbers are those of Gymnasium's environments, with the settings that an environment was made with.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

# From the observations after a step, (..., S) in the environment's units, to whether it ended there, (...) bool.
Rule = Callable[[Tensor], Tensor]

Range = tuple[float, float]


@dataclass(frozen=True)
class Healthy:
    """The ranges that MuJoCo's walkers stay in while they live.

    Attributes:
        skipped: positions in front of the height that are left out of observations unless the settings keep them.
        z: height of the torso; inside of it, bounds left out.
        angle: pitch of the torso, the entry after the height; None: not looked at.
        state: every entry after the height; None: not looked at.
    """

    skipped: int
    z: Range
    angle: Range | None = None
    state: Range | None = None


HEALTHY = {
    "Hopper": Healthy(1, (0.7, math.inf), (-0.2, 0.2), (-100.0, 100.0)),
    "Walker2d": Healthy(1, (0.8, 2.0), (-1.0, 1.0)),
    "Ant": Healthy(2, (0.2, 1.0)),
    "Humanoid": Healthy(2, (1.0, 2.0)),
}
NEVER = ("HalfCheetah", "Swimmer", "Reacher", "Pusher", "Pendulum")


def termination_rule(spec: EnvSpec | None) -> Rule | None:
    """The rule of an environment, or None where none is known (also if a wrapper may have changed observations)."""
    if spec is None or spec.additional_wrappers:
        return None
    name = spec.id.rpartition("-v")[0]
    if name in HEALTHY:
        return _walker(HEALTHY[name], spec.kwargs)
    if name in NEVER:
        return _never
    if name == "InvertedPendulum":
        return _tipped
    return partial(_on_the_hill, spec.kwargs) if name == "MountainCarContinuous" else None


def _walker(healthy: Healthy, settings: Mapping[str, Any]) -> Rule:
    if not settings.get("terminate_when_unhealthy", True):
        return _never
    first = 0 if settings.get("exclude_current_positions_from_observation", True) else healthy.skipped
    z = settings.get("healthy_z_range", healthy.z)
    angle = settings.get("healthy_angle_range", healthy.angle)
    state = settings.get("healthy_state_range", healthy.state)

    def rule(observations: Tensor) -> Tensor:
        alive = observations.isfinite().all(-1) & _inside(observations[..., first], z)
        if healthy.angle is not None:
            alive = alive & _inside(observations[..., first + 1], angle)
        if healthy.state is not None:
            alive = alive & _inside(observations[..., first + 1 :], state).all(-1)
        return ~alive

    return rule


def _inside(values: Tensor, bounds: Range) -> Tensor:
    return (values > bounds[0]) & (values < bounds[1])


def _never(observations: Tensor) -> Tensor:
    return torch.zeros(observations.shape[:-1], dtype=torch.bool, device=observations.device)


def _tipped(observations: Tensor) -> Tensor:
    return ~(observations.isfinite().all(-1) & (observations[..., 1].abs() <= 0.2))


def _on_the_hill(settings: Mapping[str, Any], observations: Tensor) -> Tensor:
    return (observations[..., 0] >= 0.45) & (observations[..., 1] >= settings.get("goal_velocity", 0))
