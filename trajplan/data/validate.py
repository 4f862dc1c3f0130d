"""One recorded episode checked and brought into the form that everything else relies on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from trajplan.data.info import DatasetInfo
from trajplan.errors import DataError

FIELDS = ("observations", "actions", "rewards", "terminations", "truncations")


@dataclass(frozen=True)
class Episode:
    """T transitions: observations (T + 1, S), actions (T, A), rewards (T,) float32; the flags (T,) bool."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


def check_episode(raw: Any, info: DatasetInfo, index: int) -> Episode:
    """Check one episode and flatten it.

    Args:
        raw: an object or mapping with observations (T + 1 of them; for Dict spaces a dictionary of arrays), actions,
            rewards, terminations and truncations (T each).
        info: the dataset's spaces and name.
        index: the episode's number, for messages.

    Refused, naming dataset, episode and field, are a missing field, an empty episode, lengths that disagree, shapes or
    types that do not fit the spaces, values that are not finite as float32, Discrete actions out of range, and an end
    (a flag) before the last step.
    """
    where = f"dataset {info.id!r}, episode {index}"
    fields = {name: _field(raw, name, where) for name in FIELDS}
    rewards = _vector(fields["rewards"], "rewards", where)
    length = len(rewards)
    if length == 0:
        raise DataError(f"{where}: the episode is empty (no rewards); leave it out.")
    observations = _observations(fields["observations"], info, length, where)
    actions = _actions(fields["actions"], info, length, where)
    flags = {}
    for name in ("terminations", "truncations"):
        flags[name] = _flags(fields[name], name, length, where)
    for name, array in (("observations", observations), ("actions", actions), ("rewards", rewards)):
        _check_finite(array, name, info, where)
    return Episode(observations, actions, rewards, **flags)


def _field(raw: Any, name: str, where: str) -> Any:
    value = raw.get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)
    if value is None:
        raise DataError(f"{where}: {name} is missing; an episode needs {', '.join(FIELDS)}.")
    return value


def _vector(values: Any, name: str, where: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError):
        raise DataError(f"{where}: {name} is not an array of numbers.") from None
    # (T, 1) against (T,) would broadcast to (T, T) in later arithmetic.
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: {name} has shape {array.shape}; it needs one number per step.")
    return array


def _observations(values: Any, info: DatasetInfo, length: int, where: str) -> np.ndarray:
    try:
        array = info.flatten_observation(values)
    except DataError as error:
        raise DataError(f"{where}: {_of_environment(str(error).split(': ', 1)[-1], info)}") from None
    if array.ndim != 2:
        raise DataError(f"{where}: observations have {array.ndim - 1} leading dimensions; they need one, time.")
    if len(array) == length:
        raise DataError(
            f"{where}: observations has {length} rows for {length} rewards; it needs {length + 1}, the observation "
            "after the last action included (early Minari datasets leave it out: use a later version of the dataset)."
        )
    if len(array) != length + 1:
        raise DataError(f"{where}: observations has {len(array)} rows for {length} rewards; it needs {length + 1}.")
    return array


def _actions(values: Any, info: DatasetInfo, length: int, where: str) -> np.ndarray:
    space = info.action_space
    try:
        array = np.asarray(values)
        with np.errstate(over="ignore"):
            flat = array.astype(np.float32)
    except (ValueError, TypeError):
        raise DataError(f"{where}: actions is not a regular array of numbers.") from None
    if len(array.shape) == 0 or len(array) != length:
        raise DataError(f"{where}: actions has shape {array.shape} for {length} rewards; it needs {length} rows.")
    if isinstance(space, spaces.Discrete):
        if array.shape not in ((length,), (length, 1)):
            needed = f"actions has shape {array.shape}; Discrete actions need one index per step."
            raise DataError(f"{where}: {_of_environment(needed, info)}")
        legal = (flat == np.rint(flat)) & (flat >= space.start) & (flat < space.start + space.n)
        if not legal.all():
            step = int(np.argmin(legal.reshape(length)))
            raise DataError(
                f"{where}: actions[{step}] is {array.reshape(length)[step]}, not one of the indices {space.start} to "
                f"{space.start + space.n - 1} of {space}."
            )
        return flat.reshape(length, 1) - np.float32(space.start)
    assert isinstance(space, spaces.Box)
    if array.shape[1:] != space.shape:
        needed = f"actions has shape {array.shape}; the action space needs {(length, *space.shape)}."
        raise DataError(f"{where}: {_of_environment(needed, info)}")
    return flat.reshape(length, info.action_dim)


def _of_environment(sentence: str, info: DatasetInfo) -> str:
    return f"{sentence[:-1]} (environment {info.env_spec.id})." if info.env_spec else sentence


def _flags(values: Any, name: str, length: int, where: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (length,):
        raise DataError(f"{where}: {name} has shape {array.shape} for {length} rewards; it needs ({length},).")
    if array.dtype != np.bool_ and not (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all()):
        raise DataError(f"{where}: {name} holds values other than true and false.")
    flags = array.astype(np.bool_)
    if flags[:-1].any():
        step = int(np.argmax(flags))
        raise DataError(
            f"{where}: {name}[{step}] is set before the episode's last step ({length - 1}); split the episode there."
        )
    return flags


def _check_finite(array: np.ndarray, name: str, info: DatasetInfo, where: str) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    step, *column = (int(i) for i in np.argwhere(~finite)[0])
    value = array[(step, *column)]
    place = f"[{step}]"
    if name == "observations" and len(info.observation_layout) > 1:
        part = next(part for part in info.observation_layout if part.columns.start <= column[0] < part.columns.stop)
        name, column = f"observations[{part.name!r}]", [column[0] - part.columns.start]
    if column:
        place = f"[{step}, {column[0]}]"
    raise DataError(f"{where}: {name}{place} (step {step}) is {value} as float32; only finite numbers can be used.")
