"""D4RL's HDF5 files.

A file holds one flat row per step: observations, actions, rewards, terminals, most often timeouts, and in some versions
next_observations. Rows are cut into episodes after every terminal and every timeout, and the two stay apart: a row
with both keeps both.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from trajplan.data.info import DatasetInfo
from trajplan.data.jumps import FACTOR, find_jumps
from trajplan.data.scores import ReferenceScores, reference_for_d4rl
from trajplan.data.sources.arrays import read_arrays
from trajplan.errors import DataError


@dataclass(frozen=True)
class _Columns:
    name: str
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray | None
    terminals: np.ndarray
    timeouts: np.ndarray
    records_goals: bool


def read_d4rl(
    path: str | Path,
    *,
    env: str | None = None,
    reference: ReferenceScores | None = None,
    time_limit: int | None = None,
    cut_jumps: bool = False,
) -> tuple[dict[str, np.ndarray], DatasetInfo, list[str]]:
    """The arrays of an `OfflineDataset`, its description, and sentences about what the file does not say.

    The observation after an episode's last action is taken from next_observations. Files without them do not have it:
    there the last transition of an episode cut by a timeout (or by the file's end) is dropped, and its predecessor
    carries the timeout; a terminal transition is kept, since its reward and end matter and what follows it does not,
    with its own observation repeated as the next one. Nor do such files show a reset inside an episode, where timeouts
    are out of step with the resets: jumps between the rows of one episode are counted (see `find_jumps`).

    Args:
        path: the file.
        env: Gymnasium id of the environment to evaluate in; its spaces must fit the data.
        reference: returns that mean 0 and 100; default: D4RL's constants by the file's name, else by `env`.
        time_limit: for files without timeouts: the steps after which an episode without a terminal was cut.
        cut_jumps: end an episode at each jump, as at a timeout.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"The file {path} is not an HDF5 file or is damaged ({_line(error)}).") from None
    with file:
        try:
            columns = _columns(file, path, time_limit)
        except (OSError, RuntimeError) as error:
            raise DataError(f"The file {path} cannot be read ({_line(error)}): it is damaged.") from None
    notes = _notes(columns)
    if columns.next_observations is None:
        notes += _look_for_jumps(columns, cut_jumps)
    ends = np.flatnonzero(columns.terminals | columns.timeouts) + 1
    if len(ends) == 0 or ends[-1] != len(columns.terminals):
        ends = np.append(ends, len(columns.terminals))
    begins = np.concatenate([[0], ends[:-1]])
    episodes = [_episode(columns, int(begin), int(end)) for begin, end in zip(begins, ends, strict=True)]
    if columns.next_observations is None:
        ended = int(columns.terminals.sum())
        notes.insert(
            0,
            f"The file has no next_observations: {len(ends) - ended:,} episodes that were cut off lost their last "
            f"transition, and after {ended:,} terminals the last observation is repeated.",
        )
    arrays, info = read_arrays(
        [episode for episode in episodes if len(episode["rewards"]) > 0],
        id=columns.name,
        env_spec=env,
        reference=reference or reference_for_d4rl(path.stem),
    )
    return arrays, info, notes


def _columns(file: h5py.File, path: Path, time_limit: int | None) -> _Columns:
    def column(name: str, width: int | None) -> Any:
        node = file.get(name)
        if not isinstance(node, h5py.Dataset) or node.ndim == 0:
            raise DataError(f"{path} has no {name!r}; D4RL files have observations, actions, rewards and terminals.")
        if node.dtype.kind not in "fiub" or node.ndim not in (width or 1, width or 2):
            raise DataError(f"{path}: {name} has shape {node.shape} and type {node.dtype}; it needs rows of numbers.")
        # Numbers beyond float32 become infinite, and are refused as such.
        with np.errstate(over="ignore"):
            return node[()].astype(np.float32)

    observations, actions, rewards = column("observations", 2), column("actions", 2), column("rewards", None)
    if rewards.shape not in ((len(rewards),), (len(rewards), 1)):
        raise DataError(f"{path}: rewards has shape {rewards.shape}; it needs one number per step.")
    terminals = _flags(column("terminals", None), "terminals", path)
    if "timeouts" in file:
        timeouts = _flags(column("timeouts", None), "timeouts", path)
    elif time_limit is not None:
        timeouts = _timeouts_by_limit(terminals, time_limit)
    else:
        raise DataError(
            f"The file {path} has no 'timeouts', so episodes cut by a time limit cannot be told from those that go "
            "on; give the limit with --time-limit."
        )
    following = column("next_observations", 2) if "next_observations" in file else None
    lengths = {"observations": len(observations), "actions": len(actions), "rewards": len(rewards)}
    lengths |= {"terminals": len(terminals), "timeouts": len(timeouts)}
    lengths |= {} if following is None else {"next_observations": len(following)}
    if len(set(lengths.values())) > 1 or len(rewards) == 0:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path}: the columns need the same number of rows, at least one: {listed}.")
    if following is not None and following.shape != observations.shape:
        raise DataError(f"{path}: next_observations has shape {following.shape}, observations {observations.shape}.")
    records_goals = isinstance(file.get("infos/goal"), h5py.Dataset)
    return _Columns(path.name, observations, actions, rewards, following, terminals, timeouts, records_goals)


def _flags(column: np.ndarray, name: str, path: Path) -> np.ndarray:
    values = column.reshape(len(column), -1)
    if values.shape[1:] != (1,) or not np.isin(values, (0, 1)).all():
        raise DataError(f"{path}: {name} must hold one true or false per step.")
    return values[:, 0].astype(np.bool_)


def _timeouts_by_limit(terminals: np.ndarray, limit: int) -> np.ndarray:
    if limit < 1:
        raise DataError(f"The time limit must be at least 1, not {limit}.")
    timeouts = np.zeros_like(terminals)
    begin = 0
    for end in [*(np.flatnonzero(terminals) + 1), len(terminals)]:
        timeouts[begin + limit - 1 : end : limit] = True
        begin = end
    return timeouts


def _notes(columns: _Columns) -> list[str]:
    notes = []
    if columns.name.startswith("maze2d"):
        notes.append("In maze2d files a timeout marks that the goal was moved, not that the walker was reset.")
    if columns.records_goals:
        notes.append("The file records goals (infos/goal) that the observations do not contain.")
    return notes


def _look_for_jumps(columns: _Columns, cut: bool) -> list[str]:
    rows = find_jumps(columns.observations, columns.terminals | columns.timeouts)
    if len(rows) == 0:
        return []
    places = f"row {rows[0]:,}" if len(rows) == 1 else f"{len(rows):,} rows (the first is row {rows[0]:,})"
    far = f"Inside episodes the observation jumps after {places} by more than {FACTOR:g} times its usual steps"
    if cut:
        columns.timeouts[rows] = True
        return [f"{far}; an episode was ended there, as at a timeout."]
    return [
        f"{far}, as if the environment had been reset there: the timeouts seem to be out of step with the resets, "
        "and what is learned from these transitions is wrong. Import the file with --cut-jumps, which ends an "
        "episode there, or a version of it that has next_observations."
    ]


def _episode(columns: _Columns, begin: int, end: int) -> dict[str, np.ndarray]:
    observations = columns.observations[begin:end]
    ended, cut = columns.terminals[end - 1], columns.timeouts[end - 1]
    if columns.next_observations is not None:
        following = columns.next_observations[begin:end]
        _check_continuous(columns.name, observations, following, begin)
        observations = np.concatenate([observations, following[-1:]])
    elif ended:
        observations = np.concatenate([observations, observations[-1:]])
    else:
        end -= 1
    last = np.arange(begin, end) == end - 1
    return {
        "observations": observations,
        "actions": columns.actions[begin:end],
        "rewards": columns.rewards[begin:end].reshape(end - begin),
        "terminations": last & ended,
        "truncations": last & cut,
    }


def _check_continuous(name: str, observations: np.ndarray, following: np.ndarray, begin: int) -> None:
    same = np.isclose(observations[1:], following[:-1], rtol=1e-4, atol=1e-4, equal_nan=True).all(1)
    if not same.all():
        row = begin + int(np.argmin(same))
        raise DataError(
            f"{name}: next_observations[{row}] is not observations[{row + 1}], though no terminal or timeout lies "
            "between; the rows are not whole trajectories."
        )


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
