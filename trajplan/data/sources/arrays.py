"""A user's own arrays."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from trajplan.data.environment import find_environment, make_environment
from trajplan.data.info import DatasetInfo, package_versions
from trajplan.data.scores import ReferenceScores, reference_for_environment
from trajplan.data.validate import FIELDS, check_episode
from trajplan.errors import DataError


def read_arrays(
    episodes: Iterable[Any],
    *,
    id: str,
    observation_space: spaces.Space | None = None,
    action_space: spaces.Space | None = None,
    env_spec: EnvSpec | str | gymnasium.Env | None = None,
    reference: ReferenceScores | None = None,
    goal_columns: Sequence[int] | None = None,
) -> tuple[dict[str, np.ndarray], DatasetInfo]:
    """Arrays and description: see `OfflineDataset.from_episodes`."""
    recorded = list(episodes)
    if not recorded:
        raise DataError(f"dataset {id!r} has no episodes.")
    spec = _specification(env_spec, id)
    if env_spec is not None and (observation_space is None or action_space is None):
        observed, acted = _spaces(env_spec, id)
        observation_space, action_space = observation_space or observed, action_space or acted
    if reference is None and spec is not None:
        reference = reference_for_environment(spec.id)
    info = DatasetInfo(
        id=id,
        observation_space=observation_space or _infer(recorded[0], "observations", id),
        action_space=action_space or _infer(recorded[0], "actions", id),
        env_spec=spec,
        reference=reference,
        versions=package_versions(),
        goal_columns=None if goal_columns is None else tuple(int(column) for column in goal_columns),
    )
    checked = [check_episode(raw, info, index) for index, raw in enumerate(recorded)]
    arrays = {name: np.concatenate([getattr(episode, name) for episode in checked]) for name in FIELDS}
    arrays["offsets"] = np.cumsum([0, *(len(episode.rewards) for episode in checked)], dtype=np.int64)
    return arrays, replace(
        info,
        num_transitions=len(arrays["rewards"]),
        num_episodes=len(checked),
        mean_return=float(np.mean([episode.rewards.sum(dtype=np.float64) for episode in checked])),
    )


def _specification(environment: EnvSpec | str | gymnasium.Env | None, id: str) -> EnvSpec | None:
    if environment is None or isinstance(environment, EnvSpec):
        return environment
    if isinstance(environment, str):
        return find_environment(environment)
    if isinstance(environment, gymnasium.Env):
        return environment.spec
    raise DataError(
        f"dataset {id!r}: env_spec is a Gymnasium environment, its specification or its id such as 'Hopper-v5', not "
        f"{type(environment).__name__}."
    )


def _spaces(environment: EnvSpec | str | gymnasium.Env, id: str) -> tuple[spaces.Space, spaces.Space]:
    if isinstance(environment, gymnasium.Env):
        return environment.observation_space, environment.action_space
    try:
        made = make_environment(environment)
    except DataError as error:
        raise DataError(
            f"dataset {id!r}: the spaces of its environment cannot be read, so give observation_space and "
            f"action_space. {error}"
        ) from None
    made.close()
    return made.observation_space, made.action_space


def _infer(episode: Any, name: str, id: str) -> spaces.Space:
    values = episode.get(name) if isinstance(episode, Mapping) else getattr(episode, name, None)
    where = f"dataset {id!r}, episode 0"
    if values is None:
        raise DataError(f"{where}: {name} is missing.")
    return _unbounded(values, name, where)


def _unbounded(values: Any, name: str, where: str) -> spaces.Space:
    if isinstance(values, Mapping):
        return spaces.Dict({key: _unbounded(inner, f"{name}[{key!r}]", where) for key, inner in values.items()})
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{where}: {name} is not a regular array of numbers.") from None
    if name == "actions" and array.dtype.kind in "iu":
        raise DataError(f"{where}: actions are integers; say action_space=Discrete(n), or a Box if they are numbers.")
    if array.ndim < 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{where}: {name} has shape {array.shape} and type {array.dtype}; it needs numbers (T, width).")
    return spaces.Box(-np.inf, np.inf, array.shape[1:], np.float32)
