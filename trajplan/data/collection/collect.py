"""Collect a Minari dataset from a Gymnasium environment with a policy and several levels of action noise."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import gymnasium as gym
import numpy as np
from minari.data_collector import EpisodeBuffer
from tqdm import tqdm

from trajplan.data.collection.noise import action_noise
from trajplan.data.collection.repeat import ActionRepeat
from trajplan.data.collection.waypoint import WaypointController
from trajplan.data.environment import find_environment, make_environment
from trajplan.data.minari_files import check_new_id, write_minari
from trajplan.data.scores import ReferenceScores, reference_for_environment
from trajplan.data.spaces import check_action_space, observation_layout
from trajplan.errors import ConfigError, DataError

Policy = Callable[[Any, np.random.Generator], Any]
"""`policy(observation, rng) -> action`: the environment's own observation and action; every random draw from `rng`."""


def collect_dataset(
    env_id: str,
    dataset_id: str,
    *,
    episodes: int | None = None,
    steps: int | None = None,
    policy: str | Policy = "random",
    noise: Sequence[float] = (0.0,),
    noise_correlation: float = 0.0,
    seed: int = 0,
    max_episode_steps: int | None = None,
    action_repeat: int = 1,
    env_kwargs: Mapping[str, Any] | None = None,
    reference: ReferenceScores | None = None,
    description: str | None = None,
    progress: bool = False,
) -> Path:
    """Collect whole episodes into a new Minari dataset; the same arguments give the same data.

    Episode i is seeded from (`seed`, i) and uses the noise level `noise[i % len(noise)]`; the episode's Minari metadata
    keep both. Terminations, truncations and the T+1 observations are recorded as the environment gives them.

    Args:
        env_id: a Gymnasium environment with Box or flat Dict observations and Box or Discrete actions.
        dataset_id: a new Minari id, for example `pointmaze/umaze-mixed-v0`.
        episodes: how many episodes to collect; or
        steps: collect whole episodes until there are at least so many transitions.
        policy: `random`, `waypoint` (PointMaze only), `module:function`, or a callable, see `Policy`.
        noise: standard deviations of the Gaussian noise added to Box actions before they are clipped to the bounds.
        noise_correlation: between the noise of successive steps, 0 or more and below 1 (`noise.action_noise`).
        seed: of the whole collection.
        max_episode_steps: time limit in place of the environment's own, in environment steps.
        action_repeat: environment steps that one action is held for, which make one transition; the dataset's
            environment records the wrapper (`repeat.ActionRepeat`).
        env_kwargs: options of the environment, recorded in the dataset. The waypoint policy adds
            `continuing_task=True, reset_target=True`: it walks from goal to goal and the data never stops at one.
        reference: returns that scores of this dataset are normalised by (default: the bundled table's, if any).
        description: a sentence for Minari's metadata; by default one is made.
        progress: show a progress bar.

    Returns:
        The dataset's folder.

    Raises:
        DataError: the id is taken or malformed, the environment cannot be made or used, or the policy fails.
        ConfigError: settings that make no sense together.
    """
    if (episodes is None) == (steps is None) or (episodes or steps or 0) < 1:
        raise ConfigError("Say how much to collect: a positive number of either episodes or steps.")
    if seed < 0:
        raise ConfigError(f"The seed must be 0 or more, not {seed}.")
    check_new_id(dataset_id)
    reference = reference or reference_for_environment(env_id)
    options = dict(env_kwargs or {})
    if policy == "waypoint" and "PointMaze" in env_id:
        options = {"continuing_task": True, "reset_target": True} | options
    env = make_collection_environment(env_id, max_episode_steps, options, action_repeat)
    try:
        act = make_policy(policy, env)
        _check_noise(noise, noise_correlation, policy, env)
        name = policy_name(policy)
        levels = ", ".join(f"{level:g}" for level in noise)
        correlated = f" (correlation {noise_correlation:g})" if noise_correlation else ""
        made = f"{env_id} with the policy {name}, action noise {levels}{correlated}, seed {seed}."
        return write_minari(
            dataset_id,
            _episodes(env, act, noise, noise_correlation, seed, episodes, steps, progress),
            observation_space=env.observation_space,
            action_space=env.action_space,
            env_spec=env.spec,
            reference=reference,
            algorithm_name=name,
            description=description or made,
        )
    finally:
        env.close()


def make_collection_environment(
    env_id: str,
    max_episode_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    action_repeat: int = 1,
) -> gym.Env:
    """The environment to collect in."""
    if action_repeat < 1:
        raise ConfigError(f"The action repeat must be at least 1, not {action_repeat}.")
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ConfigError(f"The time limit must be at least 1, not {max_episode_steps}.")
    spec = find_environment(env_id)
    limit = max_episode_steps or spec.max_episode_steps
    if limit is None:
        raise DataError(f"{env_id} has no time limit of its own; give one with --max-episode-steps.")
    spec = replace(spec, max_episode_steps=limit, kwargs=spec.kwargs | dict(env_kwargs or {}))
    env = make_environment(spec)
    observation_layout(env.observation_space, env_id)
    check_action_space(env.action_space, env_id)
    return ActionRepeat(env, action_repeat) if action_repeat > 1 else env


def make_policy(policy: str | Policy, env: gym.Env) -> Policy:
    """A policy by name for `env`: `random`, `waypoint`, `module:function`; a callable is returned as it is."""
    if not isinstance(policy, str):
        return policy
    if policy == "random":
        return lambda observation, rng: _random_action(env.action_space, rng)
    if policy == "waypoint":
        return WaypointController(env)
    module_name, colon, function_name = policy.partition(":")
    if not (module_name and colon and function_name):
        raise ConfigError(f"Unknown policy {policy!r}; it is random, waypoint or module:function.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the installed command does not look in the working folder by itself
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"The policy {policy!r} cannot be imported: {error}.") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"The policy {policy!r} does not exist: {module.__file__} has no function {function_name!r}.")
    return function


def policy_name(policy: str | Policy) -> str:
    """`random`, `waypoint`, `module:function`, or the like for a callable."""
    if isinstance(policy, str):
        return policy
    named = policy if hasattr(policy, "__qualname__") else type(policy)
    return f"{named.__module__}:{named.__qualname__}"


def run_episode(
    env: gym.Env, policy: Policy, *, noise: float = 0.0, noise_correlation: float = 0.0, seed: int = 0
) -> EpisodeBuffer:
    """One episode from `env.reset(seed=seed)` to its end.

    Returns:
        T+1 observations in the environment's own form (Dict: a dict of arrays), T actions (clipped to the space, noise
        included), rewards, terminations and truncations.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))  # apart from the environment's stream
    observation, _ = env.reset(seed=seed)
    observations: list[Any] = [observation]
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    terminations: list[bool] = []
    truncations: list[bool] = []
    extra = action_noise(noise, noise_correlation, env.action_space.shape or (), rng) if noise else None
    while not (terminations and (terminations[-1] or truncations[-1])):
        with _BlamePolicy(policy, seed, len(actions)):
            action = _fit_action(policy(observation, rng), env.action_space, extra)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
        terminations.append(bool(terminated))
        truncations.append(bool(truncated))
    return EpisodeBuffer(
        seed=seed,
        observations=_stack(observations),
        actions=np.stack(actions),
        rewards=np.array(rewards),
        terminations=np.array(terminations),
        truncations=np.array(truncations),
        infos={},
    )


def episode_seed(seed: int, episode: int) -> int:
    """The seed of one episode: a hash of both numbers, so that neighbouring collections share no episodes."""
    return int(np.random.SeedSequence((seed, episode)).generate_state(1)[0])


def _episodes(
    env: gym.Env,
    policy: Policy,
    noise: Sequence[float],
    noise_correlation: float,
    seed: int,
    episodes: int | None,
    steps: int | None,
    progress: bool,
) -> Iterator[tuple[EpisodeBuffer, dict[str, float]]]:
    episode = done = 0
    unit = "episode" if steps is None else "step"
    with tqdm(total=episodes or steps, unit=unit, desc="collecting", disable=not progress) as bar:
        while done < (episodes or steps or 0):
            level = float(noise[episode % len(noise)])
            seed_here = episode_seed(seed, episode)
            buffer = run_episode(env, policy, noise=level, noise_correlation=noise_correlation, seed=seed_here)
            yield buffer, {"noise": level, "noise_correlation": noise_correlation}
            episode += 1
            gained = 1 if steps is None else len(buffer)
            done += gained
            bar.update(gained)


def _check_noise(noise: Sequence[float], noise_correlation: float, policy: str | Policy, env: gym.Env) -> None:
    if len(noise) == 0 or not all(np.isfinite(level) and level >= 0 for level in noise):
        raise ConfigError(f"Noise levels are standard deviations, 0 or more; got {list(noise)}.")
    if not 0 <= noise_correlation < 1:
        raise ConfigError(f"The noise correlation must be at least 0 and below 1, not {noise_correlation:g}.")
    if noise_correlation and not any(noise):
        raise ConfigError("A noise correlation needs noise: give a level above 0.")
    if any(noise) and policy == "random":
        raise ConfigError("The random policy takes no noise.")
    if any(noise) and not isinstance(env.action_space, gym.spaces.Box):
        raise ConfigError(f"Noise is added to Box actions only, not to {env.action_space}.")


def _random_action(space: gym.Space, rng: np.random.Generator) -> Any:
    if isinstance(space, gym.spaces.Discrete):
        return space.start + rng.integers(space.n)
    assert isinstance(space, gym.spaces.Box)
    # An unbounded side has no uniform distribution; a unit interval stands in for it.
    low = np.where(np.isfinite(space.low), space.low, -1.0)
    high = np.where(np.isfinite(space.high), space.high, 1.0)
    return rng.uniform(low, high)


def _fit_action(action: Any, space: gym.Space, extra: Callable[[], np.ndarray] | None) -> np.ndarray:
    """The action as `space` has it, with noise; raises ValueError if it cannot be one."""
    if isinstance(space, gym.spaces.Discrete):
        index = np.asarray(action)
        if index.shape != () or index.dtype.kind not in "iu" or not space.contains(np.int64(index)):
            raise ValueError(f"the action {action!r} is not in {space}")
        return index.astype(np.int64)
    assert isinstance(space, gym.spaces.Box)
    array = np.asarray(action, dtype=np.float64)
    if array.shape != space.shape or not np.isfinite(array).all():
        raise ValueError(f"the action {action!r} is not a finite array of shape {space.shape}")
    if extra is not None:
        array = array + extra()
    # np.clip costs as much as a simulation step of a small environment.
    return np.minimum(np.maximum(array, space.low), space.high).astype(space.dtype)


def _stack(observations: Sequence[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: _stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)


class _BlamePolicy:
    """Turns whatever the user's code raises into one sentence that says where."""

    def __init__(self, policy: Policy, seed: int, step: int) -> None:
        self.policy, self.seed, self.step = policy, seed, step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            frame = traceback.extract_tb(trace)[-1]
            what = f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
            where = f"step {self.step} of the episode with seed {self.seed}"
            raise DataError(f"The policy {policy_name(self.policy)} failed at {where}: {what}.") from error
