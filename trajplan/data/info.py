"""What is known about a dataset besides its arrays; a checkpoint keeps it as `dataset.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import metadata
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from trajplan.data.environment import make_environment, spec_from_dict, spec_to_dict
from trajplan.data.scores import ReferenceScores
from trajplan.data.spaces import (
    Part,
    check_action_space,
    flatten_observation,
    observation_layout,
    space_from_json,
    space_to_json,
)
from trajplan.errors import DataError

_PACKAGES = ("trajplan", "gymnasium", "gymnasium-robotics", "minari", "mujoco", "numpy", "ogbench")


@dataclass(frozen=True)
class Source:
    """One of the datasets that another is made of."""

    id: str
    num_episodes: int = 0
    num_transitions: int = 0


@dataclass(frozen=True)
class DatasetInfo:
    """Spaces, environment, reference scores and sizes of a dataset.

    Attributes:
        id: the dataset's name; that of several as one is theirs, joined by " + ".
        observation_space: Box or Dict of Box.
        action_space: Box or Discrete.
        env_spec: the environment to evaluate in (the dataset's evaluation environment where it names one, else the
            one it was collected in), or None.
        reference: the returns that mean 0 and 100, or None: then only raw returns can be reported.
        num_transitions, num_episodes: sizes.
        mean_return: mean undiscounted return of the episodes.
        versions: package versions by name, of this process when the dataset was read; `dataset` is the Minari version
            that wrote the data.
        sources: the datasets that it is made of, in the order of its episodes; empty where it is one.
        goal_columns: the columns of the flat observation that a goal fixes; None where the data know no goals.
        held_out: ids of the datasets whose episodes losses are measured on; empty: a share of its own.
        transforms: what was changed when the data were made, each with a `name` and its settings.

    Raises:
        DataError: when a space is not supported.
    """

    id: str
    observation_space: spaces.Space
    action_space: spaces.Space
    env_spec: EnvSpec | None = None
    reference: ReferenceScores | None = None
    num_transitions: int = 0
    num_episodes: int = 0
    mean_return: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    goal_columns: tuple[int, ...] | None = None
    held_out: tuple[str, ...] = ()
    transforms: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_action_space(self.action_space, self._owner)
        width = self.observation_dim
        if self.goal_columns is not None:
            check_columns(self.goal_columns, width, self._owner)

    @property
    def _owner(self) -> str:
        return f"dataset {self.id!r}"

    @cached_property
    def observation_layout(self) -> tuple[Part, ...]:
        """The parts of a flat observation in order, each with its name, shape and columns."""
        return observation_layout(self.observation_space, self._owner)

    @property
    def observation_dim(self) -> int:
        """S, the width of a flat observation."""
        return self.observation_layout[-1].columns.stop

    @property
    def action_dim(self) -> int:
        """A, the width of a flat action; 1 for Discrete."""
        return check_action_space(self.action_space, self._owner)

    @property
    def is_discrete(self) -> bool:
        """Whether actions are Discrete."""
        return isinstance(self.action_space, spaces.Discrete)

    @property
    def num_actions(self) -> int | None:
        """Number of Discrete actions, or None for Box."""
        return int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else None

    def flatten_observation(self, observation: Any) -> np.ndarray:
        """Environment observation(s) as float32 (..., S).

        Args:
            observation: an array (..., *shape), or for Dict spaces a dictionary of them; leading dimensions (a batch
                of environments, time) are kept.

        Raises:
            DataError: when a key is missing or a shape does not fit the space.
        """
        return flatten_observation(self.observation_layout, observation, self._owner)

    def unflatten_action(self, action: np.ndarray) -> Any:
        """Flat action(s) (..., A) as the environment takes them.

        A Box action is clipped to the space's bounds (the arrays of the dataset keep what was recorded) and has its
        shape and dtype. A Discrete one is rounded to the nearest legal index; a single action comes back as an int,
        a batch as an int64 array.

        Raises:
            DataError: when the last dimension is not A, or a value is NaN.
        """
        flat = np.asarray(action)
        if flat.ndim == 0 or flat.shape[-1] != self.action_dim:
            raise DataError(f"{self._owner}: an action of shape {flat.shape} does not end in {self.action_dim}.")
        if np.isnan(flat).any():
            raise DataError(f"{self._owner}: the action {flat.tolist()} is not a number.")
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            index = np.clip(np.rint(flat[..., 0]), 0, space.n - 1).astype(np.int64) + int(space.start)
            return int(index) if index.ndim == 0 else index
        assert isinstance(space, spaces.Box)
        shaped = flat.reshape(*flat.shape[:-1], *space.shape).astype(np.float64)
        if np.issubdtype(space.dtype, np.integer):
            shaped = np.rint(shaped)
        return np.clip(shaped, space.low, space.high).astype(space.dtype)

    def normalized_score(self, returns: Any) -> np.ndarray | None:
        """Returns of any shape as `100 (return - min) / (max - min)`, or None without reference scores."""
        return None if self.reference is None else self.reference.normalize(np.asarray(returns))

    def make_env(self, **kwargs: Any) -> gymnasium.Env:
        """A new evaluation environment; `kwargs` go to `gymnasium.make`.

        Raises:
            DataError: when the dataset names no environment, or it is not installed here.
        """
        if self.env_spec is None:
            raise DataError(f"{self._owner} does not record its environment: name one.")
        return make_environment(self.env_spec, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary.

        Raises:
            DataError: when the environment's specification holds Python objects.
        """
        reference = self.reference
        return {
            "id": self.id,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "env_spec": None if self.env_spec is None else spec_to_dict(self.env_spec),
            "reference": reference
            and {"min": float(reference.min), "max": float(reference.max), "source": reference.source},
            "num_transitions": int(self.num_transitions),
            "num_episodes": int(self.num_episodes),
            "mean_return": float(self.mean_return),
            "versions": dict(self.versions),
            "sources": [asdict(source) for source in self.sources],
            **self.additions(),
        }

    def additions(self) -> dict[str, Any]:
        """What Minari's own metadata have no place for, as JSON: `goal_columns`, `held_out` and `transforms`."""
        return {
            "goal_columns": None if self.goal_columns is None else list(self.goal_columns),
            "held_out": list(self.held_out),
            "transforms": [dict(transform) for transform in self.transforms],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DatasetInfo":
        """The inverse of `to_dict`; keys that it does not know (a checkpoint's discount) are ignored.

        Raises:
            DataError: when a value is missing or malformed.
        """
        try:
            reference, env_spec = values["reference"], values["env_spec"]
            return cls(
                id=values["id"],
                observation_space=space_from_json(values["observation_space"]),
                action_space=space_from_json(values["action_space"]),
                env_spec=None if env_spec is None else spec_from_dict(env_spec),
                reference=None if reference is None else ReferenceScores(**reference),
                num_transitions=int(values["num_transitions"]),
                num_episodes=int(values["num_episodes"]),
                mean_return=float(values["mean_return"]),
                versions=dict(values["versions"]),
                # Missing from files written before datasets could be joined.
                sources=tuple(Source(**source) for source in values.get("sources", ())),
                **read_additions(values),
            )
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise DataError(f"The saved dataset description is damaged: {type(error).__name__} {error}.") from None


def read_additions(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `DatasetInfo.additions`; all of them are missing from older files."""
    columns = values.get("goal_columns")
    return {
        "goal_columns": None if columns is None else tuple(int(column) for column in columns),
        "held_out": tuple(str(id) for id in values.get("held_out", ())),
        "transforms": tuple(dict(transform) for transform in values.get("transforms", ())),
    }


def check_columns(columns: tuple[int, ...], observation_dim: int, owner: str) -> None:
    """Refuse goal columns that are not different columns of an observation."""
    known = all(0 <= column < observation_dim for column in columns)
    if not columns or not known or len(set(columns)) < len(columns):
        raise DataError(
            f"{owner}: a goal needs one or more different columns of the {observation_dim} of an observation, from 0 "
            f"on, not {list(columns)}."
        )


def dataset_ids(values: Mapping[str, Any]) -> list[str]:
    """The ids of the datasets in a `dataset.json`, as `OfflineDataset.from_minari` takes them."""
    return [source["id"] for source in values.get("sources", ())] or [values["id"]]


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that decide what a score means."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
