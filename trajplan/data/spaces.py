"""Gymnasium spaces as flat float32 vectors, with the layout kept, and as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from minari.serialization import deserialize_space, serialize_space

from trajplan.errors import DataError

SUPPORTED = "observations may be Box or Dict of Box, actions Box or Discrete"
HOW_TO_BOUND = "give from_episodes an env_spec or an action_space with bounds, and trajplan datasets import an --env"


@dataclass(frozen=True)
class Part:
    """One Box of an observation space: where it is found and which columns of the flat vector it fills."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    columns: slice
    dtype: Any = np.float32

    @property
    def size(self) -> int:
        """Number of columns."""
        return self.columns.stop - self.columns.start

    @property
    def name(self) -> str:
        """`observation` for a plain Box, else the keys that lead to it, joined by a slash."""
        return "/".join(self.path) or "observation"


def observation_layout(space: spaces.Space, owner: str) -> tuple[Part, ...]:
    """The parts of an observation space in the order of the flat vector: keys sorted, at every level.

    Args:
        space: Box, or Dict of Box (nested Dicts too).
        owner: what the space belongs to, for the error message.
    """
    parts: list[Part] = []

    def visit(inner: spaces.Space, path: tuple[str, ...]) -> None:
        if isinstance(inner, spaces.Dict):
            for key in sorted(inner.spaces):
                visit(inner.spaces[key], (*path, key))
            return
        name = "observation space" + "".join(f"[{key!r}]" for key in path)
        if not isinstance(inner, spaces.Box):
            raise DataError(f"{owner}: the {name} is {_describe(inner)}, which is not supported; {SUPPORTED}.")
        if _is_image(inner):
            raise DataError(f"{owner}: the {name} holds images {inner.shape}, which are not supported; {SUPPORTED}.")
        start = parts[-1].columns.stop if parts else 0
        parts.append(Part(path, inner.shape, slice(start, start + math.prod(inner.shape)), inner.dtype))

    visit(space, ())
    if not parts or parts[-1].columns.stop == 0:
        raise DataError(f"{owner}: the observation space {space} is empty.")
    return tuple(parts)


def check_action_space(space: spaces.Space, owner: str) -> int:
    """Width A of a flat action: the size of a Box, 1 for Discrete; refuses any other space."""
    if isinstance(space, spaces.Discrete):
        return 1
    if isinstance(space, spaces.Box) and not _is_image(space) and math.prod(space.shape) > 0:
        return math.prod(space.shape)
    raise DataError(f"{owner}: the action space is {_describe(space)}, which is not supported; {SUPPORTED}.")


def has_bounds(space: spaces.Space) -> bool:
    """Whether every action has finite bounds, low below high; Discrete ones do."""
    if not isinstance(space, spaces.Box):
        return True
    return bool(np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all())


def one_line(space: spaces.Space) -> str:
    """The space as Gymnasium writes it, without the line breaks of long arrays."""
    return " ".join(str(space).split())


def flatten_observation(layout: tuple[Part, ...], observation: Any, owner: str) -> np.ndarray:
    """Observation(s) of any leading dimensions as one float32 array (..., S).

    Gymnasium's own `flatten` takes one sample at a time, and keeps the order of keys and the type that a space has.
    """
    flat = [_flatten_part(part, _pick(part, observation, owner), owner) for part in layout]
    if len({array.shape[:-1] for array in flat}) > 1:
        sizes = ", ".join(f"{part.name} {array.shape[:-1]}" for part, array in zip(layout, flat, strict=True))
        raise DataError(f"{owner}: the parts of the observation disagree in their leading dimensions: {sizes}.")
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=-1)


def unflatten_observation(layout: tuple[Part, ...], flat: np.ndarray) -> Any:
    """Flat observation(s) (..., S) as the space has them: an array (..., *shape), or a (nested) dictionary of arrays.

    Floats stay float32; integers become integers again.
    """
    result: dict[str, Any] = {}
    for part in layout:
        array = in_dtype(flat[..., part.columns].reshape(*flat.shape[:-1], *part.shape), part.dtype)
        if not part.path:
            return array
        inner = result
        for key in part.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[part.path[-1]] = array
    return result


def in_dtype(array: np.ndarray, dtype: Any) -> np.ndarray:
    """A float32 array as a space's integers where these hold the same numbers, else as it is."""
    if np.can_cast(array.dtype, dtype):
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    return cast if np.array_equal(cast, array) else array


def space_to_json(space: spaces.Space) -> str:
    """A supported space as Minari writes it: JSON in a string, for its infinite bounds are not strict JSON."""
    return serialize_space(space)


def space_from_json(saved: str | Mapping[str, Any]) -> spaces.Space:
    """The inverse of `space_to_json`; also reads the dictionaries that earlier versions wrote."""
    return deserialize_space(saved if isinstance(saved, str) else _as_minari(saved))


def _as_minari(saved: Mapping[str, Any]) -> dict[str, Any]:
    if saved["type"] == "Dict":
        return {"type": "Dict", "subspaces": {key: _as_minari(inner) for key, inner in saved["spaces"].items()}}
    if saved["type"] != "Box":
        return dict(saved)
    # Flat lists, with the strings inf and -inf for infinite bounds.
    bounds = {key: np.array([float(x) if isinstance(x, str) else x for x in saved[key]]) for key in ("low", "high")}
    return {**saved, **{key: values.reshape(saved["shape"]).tolist() for key, values in bounds.items()}}


def _describe(space: spaces.Space) -> str:
    return type(space).__name__


def _is_image(space: spaces.Box) -> bool:
    return space.dtype == np.uint8 and len(space.shape) in (2, 3) and min(space.shape[:2]) >= 32


def _pick(part: Part, observation: Any, owner: str) -> Any:
    for depth, key in enumerate(part.path):
        if not isinstance(observation, Mapping) or key not in observation:
            name = "".join(f"[{key!r}]" for key in part.path[: depth + 1])
            raise DataError(f"{owner}: observation{name} is missing.")
        observation = observation[key]
    return observation


def _flatten_part(part: Part, values: Any, owner: str) -> np.ndarray:
    # What float32 cannot hold becomes infinite here, and the validator names it.
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError):
        raise DataError(f"{owner}: {part.name} is not a regular array of numbers.") from None
    lead = array.ndim - len(part.shape)
    if lead < 0 or array.shape[lead:] != part.shape:
        raise DataError(f"{owner}: {part.name} has shape {array.shape}, which does not end in {part.shape}.")
    return array.reshape(*array.shape[:lead], part.size)
