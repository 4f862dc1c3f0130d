"""What acts: the protocol of a batched policy, a random one, and the face for one environment in a user's own loop."""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np

from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError
from trajplan.planners.controller import PlanningPolicy
from trajplan.planners.plan import Plan
from trajplan.planners.settings import describe_planner


class Policy(Protocol):
    """Acts in many environments at once; every environment has a slot, a number that `rows` refers to."""

    info: DatasetInfo

    def reset(self, seeds: Sequence[int], rows: Sequence[int], goals: np.ndarray | None = None) -> None:
        """Start a new episode in each of the slots `rows`, with one seed per episode; a slot exists once reset.

        `goals` (m, G) float32 holds what the columns `info.goal_columns` of an observation are to become; None where
        there are none, and a policy for data without goals need not have the argument.
        """

    def act(self, observations: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Actions for the slots `rows`, one row each and in that order.

        Args:
            observations: (m, S) float32, flattened by `info.flatten_observation`.
            rewards: (m,) float32, what each slot's last action earned; ignored at a slot's first step.
            rows: (m,) int64 slot numbers, each reset before.

        Returns:
            (m, A) float32, to be given to the environment through `info.unflatten_action`.
        """


class RandomPolicy:
    """Samples the action space as `gymnasium` does, with a generator per episode: the floor of every comparison."""

    def __init__(self, info: DatasetInfo, seed: int = 0) -> None:
        self.info = info
        self.seed = seed
        self._spaces: dict[int, gymnasium.Space] = {}

    def reset(self, seeds: Sequence[int], rows: Sequence[int], goals: np.ndarray | None = None) -> None:
        """Give each slot a generator that depends on the policy's seed and the episode's seed alone."""
        for seed, row in zip(seeds, rows, strict=True):
            space = copy.deepcopy(self.info.action_space)
            space.seed(int(np.random.SeedSequence([self.seed, seed]).generate_state(1)[0]))
            self._spaces[row] = space

    def act(self, observations: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(m, A) float32 actions drawn from the action space; observations, rewards and goals are not read."""
        start = getattr(self.info.action_space, "start", 0)
        samples = [np.asarray(self._spaces[int(row)].sample(), np.float32).reshape(-1) - start for row in rows]
        return np.stack(samples).astype(np.float32)


def _kind(policy: Policy) -> str:
    """What acts, and how large it is."""
    planner = getattr(policy, "planner", None)
    model = getattr(planner, "model", None) or getattr(planner, "dynamics", None) or getattr(policy, "method", None)
    name = getattr(policy, "name", None) or type(model or policy).__name__
    if model is None:
        return name
    return f"{name}, {sum(values.numel() for values in model.parameters()):,} parameters"


class Controller:
    """One environment's view of a policy, in the environment's own observations and actions.

    Example:
        controller = trajplan.load("runs/maze")
        observation, _ = env.reset(seed=0)
        controller.reset(seed=0)
        reward, done = None, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(controller.act(observation, reward))
            done = terminated or truncated
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._steps: int | None = None

    def __repr__(self) -> str:
        info = self.info
        lines = [
            f"Controller: {_kind(self.policy)}",
            f"  dataset      {info.id}: {info.num_episodes:,} episodes, {info.num_transitions:,} transitions, "
            f"mean return {info.mean_return:.2f}",
            f"  environment  {info.env_spec.id if info.env_spec else 'none recorded'}: "
            f"{info.observation_dim} observed, actions {info.action_space}",
        ]
        if isinstance(self.policy, PlanningPolicy):
            planner = describe_planner(self.policy.config)
            name = planner.pop("type")
            settings = [f"{key} {value}" for key, value in planner.items() if value is not None]
            lines.append(f"  planner      {name}: {', '.join(settings)}")
        return "\n".join(lines)

    @property
    def info(self) -> DatasetInfo:
        """What the policy knows of its dataset: spaces, environment, reference scores."""
        return self.policy.info

    @property
    def plan(self) -> Plan | None:
        """The plan behind the last action, or None where the policy makes none."""
        return getattr(self.policy, "last_plans", {}).get(0)

    def release(self) -> Policy:
        """The policy, for others to run: an episode of the controller's own ends here, to be begun anew by `reset`."""
        self._steps = None
        return self.policy

    def reset(self, seed: int = 0, goal: Any = None) -> None:
        """Forget the past and start an episode; the same seed gives the same actions for the same observations.

        Args:
            seed: of the episode.
            goal: (G,) what the columns `info.goal_columns` of the observation are to become, for a policy that acts
                for a goal.

        Raises:
            ConfigError: for a goal of another size, or none where the policy needs one.
        """
        if goal is None:
            self.policy.reset([seed], [0])
        else:
            self.policy.reset([seed], [0], np.asarray(goal, np.float32).reshape(1, -1))
        self._steps = 0

    def act(self, observation: Any, reward: float | None = None) -> Any:
        """The next action.

        Args:
            observation: as the environment gives it (an array, or a dictionary of arrays).
            reward: what the previous action earned; None at an episode's first step only.

        Returns:
            An action of the environment's action space.

        Raises:
            ConfigError: before `reset`, or when the reward is missing after the first step.
        """
        if self._steps is None:
            raise ConfigError("call controller.reset(seed=...) before the first controller.act(observation).")
        if reward is None and self._steps > 0:
            raise ConfigError(
                "from an episode's second step on give the reward of the last action: act(observation, reward); "
                "call controller.reset(seed=...) where a new episode starts."
            )
        observations = self.info.flatten_observation(observation).reshape(1, -1)
        actions = self.policy.act(observations, np.array([reward or 0.0], np.float32), np.array([0]))
        self._steps += 1
        return self.info.unflatten_action(actions[0])
