"""Several datasets of one environment as one: what they must have in common, and their joint description."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from trajplan.data.environment import spec_to_dict
from trajplan.data.info import DatasetInfo, Source
from trajplan.data.spaces import one_line
from trajplan.errors import DataError

# What tells environments apart; the rest of a specification differs between versions of Gymnasium.
_OF_ENVIRONMENT = ("id", "kwargs", "max_episode_steps", "additional_wrappers")


def describe_together(infos: Sequence[DatasetInfo]) -> DatasetInfo:
    """The description of several datasets as one, without sizes; that of a single one is its own.

    Datasets named twice are refused, and those whose spaces, environments or reference scores differ.
    """
    if not infos:
        raise DataError("Name at least one dataset.")
    first, *others = infos
    if not others:
        return first
    ids = [info.id for info in infos]
    if len(set(ids)) < len(ids):
        raise DataError(f"The dataset {next(id for id in ids if ids.count(id) > 1)!r} is named twice.")
    for other in others:
        difference = _difference(first, other)
        if difference is not None:
            raise DataError(f"The datasets {first.id!r} and {other.id!r} cannot be trained on as one: {difference}.")
    scored = [info for info in infos if info.reference is not None]
    for other in scored[1:]:
        known, found = scored[0].reference, other.reference
        if known is not None and found is not None and (known.min, known.max) != (found.min, found.max):
            raise DataError(
                f"The datasets {scored[0].id!r} and {other.id!r} cannot be trained on as one: their reference scores "
                f"are {known.min:g} to {known.max:g} and {found.min:g} to {found.max:g}."
            )
    written = sorted({info.versions["dataset"] for info in infos if "dataset" in info.versions})
    return replace(
        first,
        id=" + ".join(ids),
        sources=tuple(Source(id) for id in ids),
        reference=scored[0].reference if scored else None,
        held_out=tuple(chain.from_iterable(info.held_out for info in infos)) if all(i.held_out for i in infos) else (),
        versions={**first.versions, "dataset": ", ".join(written)},
    )


def with_sizes(info: DatasetInfo, episodes: Sequence[int], offsets: np.ndarray) -> DatasetInfo:
    """The description with the sizes of each source, from its number of episodes and the dataset's offsets."""
    if not info.sources:
        return info
    bounds = offsets[np.cumsum([0, *episodes])]
    sources = [
        Source(source.id, count, int(size))
        for source, count, size in zip(info.sources, episodes, np.diff(bounds), strict=True)
    ]
    return replace(info, sources=tuple(sources))


def _difference(first: DatasetInfo, other: DatasetInfo) -> str | None:
    for name in ("observation", "action"):
        found = _of_spaces(getattr(first, f"{name}_space"), getattr(other, f"{name}_space"), f"their {name} spaces")
        if found is not None:
            return found
    for name in ("goal_columns", "transforms"):
        values = getattr(first, name), getattr(other, name)
        if values[0] != values[1]:
            return f"their {name} are {values[0]} and {values[1]}"
    return _of_environments(first.env_spec, other.env_spec)


def _of_spaces(first: spaces.Space, other: spaces.Space, name: str) -> str | None:
    if first == other:
        return None
    if isinstance(first, spaces.Dict) and isinstance(other, spaces.Dict):
        if first.spaces.keys() != other.spaces.keys():
            return f"{name} have the keys {', '.join(sorted(first.spaces))} and {', '.join(sorted(other.spaces))}"
        found = (_of_spaces(first[key], other[key], f"{name}[{key!r}]") for key in sorted(first.spaces))
        return next((text for text in found if text is not None), None)
    if isinstance(first, spaces.Box) and isinstance(other, spaces.Box):
        for attribute in ("shape", "dtype"):
            values = getattr(first, attribute), getattr(other, attribute)
            if values[0] != values[1]:
                return f"{name} have the {attribute} {values[0]} and {values[1]}"
        for bound in ("low", "high"):
            values = getattr(first, bound).reshape(-1), getattr(other, bound).reshape(-1)
            apart = ~np.isclose(*values)
            if apart.any():
                column = int(np.argmax(apart))
                pair = f"{values[0][column]:g} and {values[1][column]:g}"
                return f"{name} have the {bound} bounds {pair} in dimension {column}"
    return f"{name} are {one_line(first)} and {one_line(other)}"


def _of_environments(first: EnvSpec | None, other: EnvSpec | None) -> str | None:
    if first is None or other is None:
        named = [spec.id if spec else "none" for spec in (first, other)]
        return None if first is other else f"their environments are {named[0]} and {named[1]}"
    values: list[dict[str, Any]] = [spec_to_dict(first), spec_to_dict(other)]
    for key in _OF_ENVIRONMENT:
        if values[0].get(key) != values[1].get(key):
            what = "environments are" if key == "id" else f"environments ({first.id}) have the {key}"
            return f"their {what} {values[0].get(key)} and {values[1].get(key)}"
    return None
