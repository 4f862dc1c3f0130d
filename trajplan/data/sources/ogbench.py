"""OGBench's files (Park et al. 2025), and the rewards of its single tasks.

A file holds flat rows: observations, actions and terminals, which mark the last row of an episode. That row's action is
no transition, so an episode of T + 1 rows has T of them:

row          0   1   2   3   4 | 5   6   7        episode 0 has 4 transitions, episode 1 has 2
observations s0  s1  s2  s3  s4| s0  s1  s2
actions      a0  a1  a2  a3  - | a0  a1  -
terminals    0   0   0   0   1 | 0   0   1
"""

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from trajplan.data.environment import find_environment, make_environment
from trajplan.data.info import DatasetInfo, package_versions
from trajplan.errors import DataError

NEEDED = ("observations", "actions", "terminals")
# What the rows of a single task's rewards are computed from, and rewards, where a file has them.
_OPTIONAL = ("rewards", "qpos", "button_states")
# NAME-KIND-v0 holds data of the environment NAME-v0, and NAME-KIND-v0-val the episodes to measure losses on.
_NAME = re.compile(r"(?P<name>.+)-(?P<kind>[^-]+)-(?P<version>v\d+)(?P<val>-val)?")
_DAMAGE = (OSError, ValueError, KeyError, EOFError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_ogbench(
    path: str | Path, *, id: str | None = None, env: str | None = None, task: int | None = None
) -> tuple[dict[str, np.ndarray], DatasetInfo]:
    """The arrays of an `OfflineDataset`, and its description.

    Rewards are 0 where the file has none. No episode ends in a terminal, each in a truncation, but where a task is
    named: then rewards are -1, and 0 where that task's goal is reached, and such a transition ends its episode, as
    OGBench's `masks` end the bootstrap there; what follows is another episode.

    Args:
        path: the file, NAME-KIND-v0.npz.
        id: the dataset's; None: as `ogbench_id` has it.
        env: Gymnasium id of the environment; None: NAME-v0, or with a task NAME-singletask-taskK-v0.
        task: K, a single task's number.
    """
    path = Path(path)
    columns = _columns(path)
    env = env or _environment_id(path, task)
    info = DatasetInfo(id=id or ogbench_id(path, task), versions=package_versions(), **_of_environment(env))
    _check_widths(columns, info, path)
    ends = _ends(columns["terminals"], path)
    kept = np.ones(len(columns["terminals"]), np.bool_)
    kept[ends] = False
    arrays = {
        "observations": columns["observations"],
        "actions": columns["actions"][kept],
        "rewards": columns.get("rewards", np.zeros(len(kept), np.float32))[kept],
        "terminations": np.zeros(kept.sum(), np.bool_),
        "truncations": np.zeros(kept.sum(), np.bool_),
        "offsets": np.concatenate([[0], ends + 1]) - np.arange(len(ends) + 1),
    }
    arrays["truncations"][arrays["offsets"][1:] - 1] = True
    if task is not None:
        rewards, reached, transform = _of_single_task(columns, env, task, path)
        info = replace(info, transforms=(transform,))
        arrays = split_at(arrays | {"rewards": rewards[kept]}, reached[kept])
    offsets = arrays["offsets"]
    return arrays, replace(
        info,
        goal_columns=tuple(range(info.observation_dim)),
        num_transitions=int(offsets[-1]),
        num_episodes=len(offsets) - 1,
        mean_return=float(arrays["rewards"].sum(dtype=np.float64) / (len(offsets) - 1)),
    )


def ogbench_id(path: str | Path, task: int | None = None) -> str:
    """The Minari id of a file's data: its own name, as `make_env_and_datasets` takes it, in the namespace `ogbench`.

    `pointmaze-medium-stitch-v0-val.npz` is `ogbench/pointmaze-medium-stitch-val-v0`, since an id ends in its version.
    """
    match = _NAME.fullmatch(Path(path).stem)
    if match is None:
        raise DataError(
            f"{Path(path).name} is not named as OGBench's files are, such as pointmaze-medium-stitch-v0.npz: name the "
            "new dataset with --id and its environment with --env."
        )
    single = "" if task is None else f"-singletask-task{task}"
    return f"ogbench/{match['name']}-{match['kind']}{single}{match['val'] or ''}-{match['version']}"


def held_out_file(path: str | Path) -> Path | None:
    """The file of held-out episodes beside NAME.npz, NAME-val.npz; None where there is none."""
    path = Path(path)
    beside = path.with_name(f"{path.stem}-val.npz")
    return beside if beside.is_file() and not path.stem.endswith("-val") else None


def single_task_rewards(positions: np.ndarray, goal: Any, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of a task that ends at a place: 0 where a transition begins within the goal's radius, else -1.

    Args:
        positions: (N, 2), where each transition begins.
        goal: (2,).
        radius: the distance that still counts.

    Returns:
        Rewards (N,) float32; and where the goal is reached, (N,) bool, the opposite of OGBench's masks.
    """
    reached = np.linalg.norm(positions - np.asarray(goal), axis=-1) <= radius
    return reached.astype(np.float32) - 1, reached


def split_at(arrays: Mapping[str, np.ndarray], ended: np.ndarray) -> dict[str, np.ndarray]:
    """The same transitions in the same order with a real end after each of those in `ended`, (N,) bool.

    An episode with an end inside becomes several: the observation that one ends with is the next one's first.
    """
    offsets = arrays["offsets"]
    last = np.zeros(len(ended), np.bool_)
    last[offsets[1:] - 1] = True
    within = np.flatnonzero(ended & ~last)
    episode = np.searchsorted(offsets, within, side="right") - 1
    # The observation after transition t of episode e is in row t + e + 1, and stands there twice from now on.
    repeated = within + episode + 1
    return {
        **arrays,
        "observations": np.insert(arrays["observations"], repeated, arrays["observations"][repeated], axis=0),
        "terminations": ended,
        "offsets": np.concatenate([[0], np.flatnonzero(last | ended) + 1]),
    }


def _columns(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        shapes = _headers(path)
        _check_headers(shapes, path)
        # With compressed members nothing can be mapped; a million rows of a maze are read in a tenth of a second.
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in (*NEEDED, *_OPTIONAL) if name in shapes}
    except _DAMAGE as error:
        line = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"The file {path} is not an .npz file or is damaged ({line}).") from None
    for name in ("observations", "actions", "rewards"):
        if name in columns:
            columns[name] = _floats(columns[name], name, path)
    return columns


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array, without reading any: images of a million steps are gigabytes."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            shapes[member.removesuffix(".npy")] = (shape, dtype)
    return shapes


def _check_headers(shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]], path: Path) -> None:
    for name in NEEDED:
        if name not in shapes:
            raise DataError(f"{path} has no {name!r}; OGBench's files have {', '.join(NEEDED)}.")
    rows = shapes["terminals"][0][:1]
    for name in (*NEEDED, *_OPTIONAL):
        shape, dtype = shapes.get(name, (None, None))
        if shape is None or dtype is None:
            continue
        if dtype.hasobject:
            raise DataError(f"{path}: {name} holds Python objects (a pickle), which are not read: save it as numbers.")
        if name == "observations" and dtype == np.uint8 and len(shape) > 2:
            raise DataError(
                f"{path}: its observations are images {shape[1:]}, which are not supported; take the file of the same "
                "task whose observations are states."
            )
        wanted = 1 if name in ("terminals", "rewards") else 2
        if dtype.kind not in "fiub" or len(shape) != wanted or shape[:1] != rows or shape[0] == 0:
            needs = "one number" if wanted == 1 else "a row of numbers"
            raise DataError(f"{path}: {name} has shape {shape} and type {dtype}; it needs {needs} for each terminal.")


def _floats(column: np.ndarray, name: str, path: Path) -> np.ndarray:
    # Numbers beyond float32 become infinite, and are refused as such.
    with np.errstate(over="ignore"):
        values = column.astype(np.float32, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise DataError(f"{path}: {name}[{row}] is {values[row].tolist()}; only finite numbers can be used.")
    return values


def _ends(terminals: np.ndarray, path: Path) -> np.ndarray:
    if not np.isin(terminals, (0, 1)).all():
        raise DataError(f"{path}: terminals must hold one true or false per row.")
    ends = np.flatnonzero(terminals)
    if len(ends) == 0 or ends[-1] != len(terminals) - 1:
        raise DataError(f"{path}: terminals[{len(terminals) - 1}], of the last row, is not set: the file is cut short.")
    lengths = np.diff(ends, prepend=-1)
    if lengths.min() < 2:
        row = int(ends[np.argmin(lengths)])
        raise DataError(f"{path}: the episode that ends in row {row} has one row; it takes two to make a transition.")
    return ends


def _environment_id(path: Path, task: int | None) -> str:
    ogbench_id(path)
    match = _NAME.fullmatch(path.stem)
    assert match is not None
    single = "" if task is None else f"-singletask-task{task}"
    return f"{match['name']}{single}-{match['version']}"


def _of_environment(env: str) -> dict[str, Any]:
    """Specification and spaces of the environment, as `DatasetInfo` takes them."""
    spec = find_environment(env)
    made = make_environment(env)
    made.close()
    return {"env_spec": spec, "observation_space": made.observation_space, "action_space": made.action_space}


def _check_widths(columns: Mapping[str, np.ndarray], info: DatasetInfo, path: Path) -> None:
    for name, space, width in (
        ("observations", info.observation_space, info.observation_dim),
        ("actions", info.action_space, info.action_dim),
    ):
        assert info.env_spec is not None
        if not isinstance(space, spaces.Box):
            raise DataError(f"{path}: the {name} of environment {info.env_spec.id} are {space}, not a Box.")
        if columns[name].shape[1] != width:
            raise DataError(
                f"{path}: {name} has {columns[name].shape[1]} columns, and environment {info.env_spec.id} has {width}."
            )


def _of_single_task(
    columns: Mapping[str, np.ndarray], env: str, task: int, path: Path
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Rewards and where the goal is reached for all rows, and the transform as it is recorded."""
    made: Any = make_environment(env)
    try:
        made.reset()
        maze: Any = made.unwrapped
        if not hasattr(maze, "cur_goal_xy") or getattr(maze, "_reward_task_id", None) != task:
            raise DataError(
                f"Environment {env} is not of a single task in a maze: the rewards of other tasks are not known here."
            )
        goal, radius = [float(x) for x in maze.cur_goal_xy], float(maze._goal_tol)
        # In a ball maze it is the ball that has to get there.
        first = 15 if "antsoccer" in env else 0
    finally:
        made.close()
    if "qpos" not in columns or columns["qpos"].shape[1] < first + 2:
        raise DataError(f"{path} has no positions 'qpos' of {first + 2} columns, which a single task's rewards need.")
    rewards, reached = single_task_rewards(columns["qpos"][:, first : first + 2], goal, radius)
    transform = {"name": "ogbench-singletask", "task": task, "goal": goal, "radius": radius, "environment": env}
    return rewards, reached, transform
