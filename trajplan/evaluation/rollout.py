"""Episodes of a policy in several environments at once, every one with its own seed."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError, DataError
from trajplan.evaluation.policy import Policy
from trajplan.evaluation.progress import StepBar


@dataclass(frozen=True)
class Episode:
    """One finished episode.

    Attributes:
        episode: its number, from 0.
        seed: what environment and policy were reset with.
        total_reward: the undiscounted return.
        length: steps.
        terminated, truncated: how it ended (both may be set).
        success: whether the environment said so in any step's `info["success"]`; None where it never says.
        task: the environment's task that it was reset to; None where it has none to choose from.
    """

    episode: int
    seed: int
    total_reward: float
    length: int
    terminated: bool
    truncated: bool
    success: bool | None = None
    task: int | None = None


@dataclass(frozen=True)
class Moment:
    """What an observer sees of an episode before each step, and once more, without an action, after the last.

    Attributes:
        episode, slot, step: episode number, slot of the environment, steps taken so far.
        env: the environment, in the state of `observation`.
        observation: (S,) float32.
        action: (A,) float32, as the policy gave it; None after the last step.
        reward: what the previous step earned (0 at the first).
        goal: (G,) float32 that the policy was told at reset, or None.
    """

    episode: int
    slot: int
    step: int
    env: gymnasium.Env
    observation: np.ndarray
    action: np.ndarray | None
    reward: float
    goal: np.ndarray | None = None


@dataclass(frozen=True)
class Rollouts:
    """Finished episodes in order of their numbers, and what acting took.

    Attributes:
        episodes: those given as finished, and the new ones.
        plan_seconds: one duration of `policy.act` per batched call.
        plan_rows: how many environments each of these calls acted for.
        seconds: wall time of all new episodes together.
    """

    episodes: list[Episode]
    plan_seconds: np.ndarray
    plan_rows: np.ndarray
    seconds: float


@dataclass(eq=False)
class _Slot:
    number: int
    env: gymnasium.Env
    queue: deque[int]
    episode: int = -1
    task: int | None = None
    goal: np.ndarray | None = None
    observation: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    reward: float = 0.0
    total: float = 0.0
    length: int = 0
    success: bool | None = None


def evaluate(
    policy: Policy,
    make_env: Callable[[], gymnasium.Env],
    *,
    episodes: int = 10,
    num_envs: int = 1,
    seed: int = 0,
    tasks: Sequence[int] | None = None,
    finished: Iterable[Episode] = (),
    on_episode: Callable[[Episode], Any] | None = None,
    observers: Collection[Callable[[Moment], Any]] = (),
    progress: bool = False,
) -> Rollouts:
    """Run `episodes` episodes, `num_envs` at a time; a batch of actions is asked for all running ones at once.

    Episode n is reset with seed + n, environment and policy both, so that what happens in it depends neither on
    `num_envs` nor on the episodes before it. Which environment runs which episodes is fixed beforehand: short
    episodes get no second turn, and the count is exact. The environments are stepped one by one in this process; one
    whose episodes are done drops out of the batch, which Gymnasium's vector environments do not offer.

    A policy whose data know goals (`info.goal_columns`) is given the one that the environment says at reset, where it
    says one: see `goal_at_reset`.

    Args:
        policy: anything that follows the `Policy` protocol; it is left as it is (no mode is flipped).
        make_env: makes one environment.
        episodes, num_envs, seed: see above.
        tasks: numbers of the environment's tasks; episode n is reset to `tasks[n % len(tasks)]`. None: it has none.
        finished: episodes of an interrupted run with the same seed, not run again.
        on_episode: called with every new episode as it finishes.
        observers: called with every `Moment` of every new episode.
        progress: whether to show a progress bar on standard error.

    Raises:
        ConfigError: for counts below 1.
        DataError: when an environment gives a reward or observation that is not finite.
    """
    if episodes < 1 or num_envs < 1 or seed < 0:
        raise ConfigError(
            f"episodes ({episodes}) and num_envs ({num_envs}) must be 1 or more, seed ({seed}) 0 or more."
        )
    results = {episode.episode: episode for episode in finished if episode.episode < episodes}
    missing = [number for number in range(episodes) if number not in results]
    start = partial(_start, policy, seed=seed, tasks=tasks)
    slots: list[_Slot] = []
    plan_seconds: list[float] = []
    plan_rows: list[int] = []
    started = time.perf_counter()
    bar: StepBar | None = None
    try:
        for number in range(min(num_envs, len(missing))):
            slots.append(_Slot(number, make_env(), deque(missing[number::num_envs])))
        bar = StepBar(len(missing), _limit(slots), progress)
        running = list(slots)
        start(running)
        while running:
            observations = np.stack([slot.observation for slot in running])
            rewards = np.array([slot.reward for slot in running], np.float32)
            rows = np.array([slot.number for slot in running])
            before = time.perf_counter()
            actions = policy.act(observations, rewards, rows)
            plan_seconds.append(time.perf_counter() - before)
            plan_rows.append(len(running))
            ended, lengths = [], []
            # All at once: one by one they would cost a quarter of a point maze's step.
            taken = policy.info.unflatten_action(np.asarray(actions))
            taken = taken.tolist() if policy.info.is_discrete else taken
            for slot, action, given in zip(running, actions, taken, strict=True):
                episode = _step(policy, slot, action, given, seed, observers)
                if episode is None:
                    continue
                results[episode.episode] = episode
                ended.append(slot)
                lengths.append(episode.length)
                if on_episode is not None:
                    on_episode(episode)
            bar.advance(len(running), lengths)
            running = [slot for slot in running if slot not in ended or slot.queue]
            start([slot for slot in ended if slot.queue])
    finally:
        if bar is not None:
            bar.close()
        for slot in slots:
            slot.env.close()
    return Rollouts(
        [results[number] for number in sorted(results)],
        np.array(plan_seconds),
        np.array(plan_rows, np.int64),
        time.perf_counter() - started,
    )


def _limit(slots: Sequence[_Slot]) -> int | None:
    """The environment's time limit in steps, or None where it is not known."""
    spec = slots[0].env.spec if slots else None
    return spec.max_episode_steps if spec is not None else None


def goal_at_reset(info: DatasetInfo, observation: Any, reset_info: Mapping[str, Any]) -> np.ndarray | None:
    """The goal that an environment says at reset, in the columns that goals fix: (G,) float32; None for none.

    That is `reset_info["goal"]` (OGBench's), an observation or its columns alone; else `observation["desired_goal"]` of
    Gymnasium-Robotics' environments.
    """
    columns = info.goal_columns
    if columns is None:
        return None
    if "goal" in reset_info:
        told = reset_info["goal"]
    elif isinstance(observation, Mapping) and "desired_goal" in observation:
        told = observation["desired_goal"]
    else:
        return None
    if not isinstance(told, Mapping) and np.size(told) == len(columns):
        return np.asarray(told, np.float32).reshape(-1)
    return info.flatten_observation(told)[list(columns)]


def _start(policy: Policy, slots: Sequence[_Slot], *, seed: int, tasks: Sequence[int] | None) -> None:
    for slot in slots:
        slot.episode = slot.queue.popleft()
        slot.task = None if tasks is None else tasks[slot.episode % len(tasks)]
        options = None if slot.task is None else {"task_id": slot.task}
        observation, told = slot.env.reset(seed=seed + slot.episode, options=options)
        slot.observation = _finite(policy.info.flatten_observation(observation), slot, "observation")
        slot.reward, slot.total, slot.length, slot.success = 0.0, 0.0, 0, None
        slot.goal = goal_at_reset(policy.info, observation, told)
        if slot.goal is not None:
            _finite(slot.goal, slot, "the goal")
    if not slots:
        return
    seeds, rows = [seed + slot.episode for slot in slots], [slot.number for slot in slots]
    goals = [slot.goal for slot in slots if slot.goal is not None]
    if len(goals) == len(slots):
        policy.reset(seeds, rows, goals=np.stack(goals))
    else:
        policy.reset(seeds, rows)


def _step(
    policy: Policy,
    slot: _Slot,
    action: np.ndarray,
    given: Any,
    seed: int,
    observers: Collection[Callable[[Moment], Any]],
) -> Episode | None:
    _observe(observers, slot, action)
    observation, reward, terminated, truncated, info = slot.env.step(given)
    slot.length += 1
    slot.observation = _finite(policy.info.flatten_observation(observation), slot, "observation")
    slot.reward = float(_finite(np.asarray(reward), slot, "reward"))
    slot.total += slot.reward
    if "success" in info:
        slot.success = bool(slot.success) or bool(info["success"])
    if not (terminated or truncated):
        return None
    _observe(observers, slot, None)
    number = slot.episode
    ends = bool(terminated), bool(truncated)
    return Episode(number, seed + number, slot.total, slot.length, *ends, slot.success, slot.task)


def _finite(values: np.ndarray, slot: _Slot, what: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise DataError(
            f"the environment gave {what} {values.tolist()} in episode {slot.episode} at step {slot.length}; "
            "the simulation has become unstable, or the environment has a fault."
        )
    return values


def _observe(observers: Collection[Callable[[Moment], Any]], slot: _Slot, action: np.ndarray | None) -> None:
    for observer in observers:
        present = slot.env, slot.observation, action, slot.reward, slot.goal
        observer(Moment(slot.episode, slot.number, slot.length, *present))
