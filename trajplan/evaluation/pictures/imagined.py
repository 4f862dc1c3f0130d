"""What a plan imagined, seen in a second simulator: predicted observations become states of MuJoCo."""

from typing import Any

import gymnasium
import numpy as np

from trajplan.data.environment import make_environment
from trajplan.evaluation.pictures.rendering import render
from trajplan.evaluation.rollout import Moment
from trajplan.planners.plan import Plan


def skipped_positions(env: gymnasium.Env, observation: np.ndarray) -> int | None:
    """How many of the root's coordinates an observation leaves out, or None where it is not known to tell the state.

    MuJoCo's locomotion environments observe positions but for the root's x (and y), then velocities, then perhaps
    contact forces and the like. Whether this is such an environment is seen from the simulator's present state.

    Args:
        env: in the state of the observation, soon after a reset: the velocities that are observed are clipped.
        observation: (S,) float32.
    """
    data: Any = getattr(env.unwrapped, "data", None)
    if not hasattr(data, "qpos"):
        return None
    for skipped in (0, 1, 2):
        state = np.concatenate([data.qpos[skipped:], data.qvel])
        if len(state) <= len(observation) and np.allclose(observation[: len(state)], state, rtol=1e-4, atol=1e-5):
            return skipped
    return None


def imagined_states(
    observations: np.ndarray, root: np.ndarray, size: tuple[int, int], dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """The positions and velocities that observations (H, S) tell, (H, nq) and (H, nv).

    Args:
        observations: of one trajectory, the present first.
        root: coordinates that they leave out, at the present; they follow from the predicted velocities.
        size: nq and nv, of the simulator.
        dt: seconds a step.
    """
    shown, velocities = size[0] - len(root), size[1]
    qvel = observations[:, shown : shown + velocities].astype(np.float64)
    moved = dt * (qvel[1:, : len(root)] + qvel[:-1, : len(root)]) / 2
    places = root + np.concatenate([np.zeros((1, len(root))), np.cumsum(moved, axis=0)])
    return np.concatenate([places, observations[:, :shown]], axis=1), qvel


class Imagination:
    """Plays the best trajectory of a plan beside the episode, step for step, and then the next plan's.

    A plan is shown to its end, though the policy may make others meanwhile: a plan replaced at once would never differ.

    Args:
        moment: an episode's first.
        skipped: of `skipped_positions`.
    """

    def __init__(self, moment: Moment, skipped: int) -> None:
        assert moment.env.spec is not None
        self.env = make_environment(moment.env.spec, render_mode="rgb_array", disable_env_checker=True)
        self.env.reset(seed=0)
        self._skipped = skipped
        self._newest: Plan | None = None
        self._made = self._begun = 0
        self._root = np.zeros(0)
        self.positions = self.velocities = np.zeros((0, 0))

    def follow(self, moment: Moment, plan: Plan | None) -> None:
        """Take note of every moment of the episode, and of the plan behind its action."""
        if plan is not None and plan is not self._newest:
            data: Any = getattr(moment.env.unwrapped, "data", None)
            self._newest, self._made, self._root = plan, moment.step, data.qpos[: self._skipped].copy()
        if self._newest is not None and moment.step - self._begun >= len(self.positions):
            simulator: Any = self.env.unwrapped
            size = (simulator.model.nq, simulator.model.nv)
            length = max(1, int(self._newest.alive[0].sum()))
            states = imagined_states(self._newest.observations[0, :length], self._root, size, simulator.dt)
            self._begun, (self.positions, self.velocities) = self._made, states

    def frame(self, step: int) -> tuple[np.ndarray, str]:
        """What was imagined of a step, (height, width, 3) uint8, and what it is in a few words."""
        age = min(step - self._begun, len(self.positions) - 1)
        simulator: Any = self.env.unwrapped
        simulator.set_state(self.positions[age], self.velocities[age])
        words = f"imagined {age} step{'s' * (age > 1)} before" if age else "planned from here"
        return render(self.env), words

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()
